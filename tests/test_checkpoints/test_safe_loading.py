"""The Runner's checkpoints load; code in a file does not run."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn
from toy_training import toy_config

from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints

needs_names = pytest.mark.skipif(
    torch.__version__ < '2.6', reason='torch takes the name from the object'
)


@pytest.fixture(scope='module')
def runner_file(tmp_path_factory):
    """A checkpoint that mmengine's Runner wrote, moving average included."""
    work_dir = tmp_path_factory.mktemp('toy')
    Runner(**toy_config(work_dir, length=2, type='CheckpointHook')).train()
    return work_dir / 'epoch_1.pth'


@pytest.fixture(scope='module', autouse=True)
def allowed():
    allow_mmengine_checkpoints()


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def test_loads_what_the_runner_wrote(runner_file, tmp_path):
    content = load(runner_file)
    assert {'ema_state_dict', 'optimizer', 'message_hub'} <= set(content)
    loss = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(loss, HistoryBuffer)
    # The statistics that the file takes by getattr work.
    assert loss.min() <= loss.mean() <= loss.max()
    # Versions 1 and 2 of numpy write different names of the same functions.
    old, new = b'numpy.core.multiarray', b'numpy._core.multiarray'
    other = tmp_path / 'other.pth'
    read, write = zipfile.ZipFile(runner_file), zipfile.ZipFile(other, 'w')
    with read, write:
        for info in read.infolist():
            data = read.read(info)
            names = (old, new) if old in data else (new, old)
            write.writestr(info.filename, data.replace(*names))
    found = load(other)['message_hub']['log_scalars']['train/loss']
    np.testing.assert_array_equal(found.data[0], loss.data[0])


def test_numeric_data_survives(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    values = [np.float64(0.5), array, np.array([True, False])]
    torch.save(values, tmp_path / 'x.pth')
    for found, value in zip(load(tmp_path / 'x.pth'), values, strict=True):
        assert type(found) is type(value)
        np.testing.assert_array_equal(found, value, strict=True)


class Call:
    """Pickles as a call, like the files that attack do."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


SYSTEM = Call(os.system, 'touch attacked')
ATTACKS = {
    'system': SYSTEM,
    'getattr of a network': Call(getattr, nn.Module, 'apply'),
    'name of HistoryBuffer': Call(getattr, HistoryBuffer, '__init__'),
    'object dtype': Call(np.dtype, 'O'),
    'structured dtype': Call(np.dtype, [('a', 'O')]),
    'subclass': Call(np.zeros(1).__reduce__()[0], np.matrix, (0,), b'b'),
    'array of objects': np.array([Call], dtype=object),
}


@pytest.mark.parametrize('name', ATTACKS)
def test_refuses_everything_else(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(value=ATTACKS[name]), 'bad.pth')
    with pytest.raises(Exception, match='(?i)unsupported global|may not'):
        load('bad.pth')
    assert os.listdir() == ['bad.pth']


@needs_names
def test_file_cannot_name_the_constructor_of_arrays(tmp_path):
    """numpy.ndarray would take raw bytes for pointers to objects."""
    bad = Call(np.ndarray, (1,), 'O', b'\0' * 8)
    torch.save(dict(value=bad), tmp_path / 'bad.pth')
    with pytest.raises(Exception, match='no arguments'):
        load(tmp_path / 'bad.pth')


def test_file_cannot_change_a_dtype(tmp_path):
    flags = Call(np.dtype, 'f8', False, True)
    flags.call += ((3, '<', None, None, None, -1, -1, 63),)
    torch.save(flags, tmp_path / 'x.pth')
    assert load(tmp_path / 'x.pth').flags == np.dtype('f8').flags


@needs_names
def test_loader_of_the_fork_is_replaced(tmp_path, monkeypatch):
    name = '_safe_torch_load'
    monkeypatch.setattr(mmengine_checkpoint, name, None, raising=False)
    allow_mmengine_checkpoints()
    monkeypatch.chdir(tmp_path)
    torch.save(SYSTEM, 'bad.pth')
    with pytest.raises(Exception, match='(?i)unsupported global'):
        mmengine_checkpoint._safe_torch_load('bad.pth', map_location='cpu')
    assert os.listdir() == ['bad.pth']


def test_line_for_stock_tools(runner_file):
    """Importing the package is not enough: that is tested with its imports."""
    code = f"""
from mmengine.config import Config
Config.fromstring(
    "custom_imports = dict(imports=['mmmobilemamba.engine.safe_checkpoint'])",
    '.py')
import torch
print(sorted(torch.load({str(runner_file)!r}, weights_only=True)))
"""
    said = subprocess.check_output([sys.executable, '-c', code], text=True)
    assert 'ema_state_dict' in said

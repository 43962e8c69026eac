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


def test_loads_what_the_runner_wrote(runner_file):
    content = load(runner_file)
    assert {'ema_state_dict', 'optimizer', 'message_hub'} <= set(content)
    loss = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(loss, HistoryBuffer)
    assert loss.data[0].dtype == np.float64
    # The statistics that the file takes by getattr work.
    assert loss.min() <= loss.mean() <= loss.max()


def test_loads_files_of_the_other_numpy(runner_file, tmp_path):
    """Versions 1 and 2 write different names of the same functions."""
    old, new = b'numpy.core.multiarray', b'numpy._core.multiarray'
    other = tmp_path / 'other.pth'
    read, write = zipfile.ZipFile(runner_file), zipfile.ZipFile(other, 'w')
    with read, write:
        for info in read.infolist():
            data = read.read(info)
            names = (old, new) if old in data else (new, old)
            write.writestr(info.filename, data.replace(*names))
    expected = load(runner_file)['message_hub']['log_scalars']['train/loss']
    found = load(other)['message_hub']['log_scalars']['train/loss']
    np.testing.assert_array_equal(found.data[0], expected.data[0])


@pytest.mark.parametrize(
    'value',
    [
        np.float64(0.5),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.array([True, False]),
    ],
)
def test_numeric_data_survives(tmp_path, value):
    torch.save(dict(value=value), tmp_path / 'x.pth')
    found = load(tmp_path / 'x.pth')['value']
    assert type(found) is type(value)
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


class Call:
    """Pickles as a call, like the files that attack do."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Other:
    secret = 'taken'


ATTACKS = {
    'system': Call(os.system, 'touch attacked'),
    'eval': Call(eval, 'open("attacked", "w")'),
    'getattr of another class': Call(getattr, Other, 'secret'),
    'getattr of a network': Call(getattr, nn.Module, 'apply'),
    'name of HistoryBuffer': Call(getattr, HistoryBuffer, '__init__'),
    'object dtype': Call(np.dtype, 'O'),
    'structured dtype': Call(np.dtype, [('a', 'O')]),
    'subclass': Call(np.zeros(1).__reduce__()[0], np.matrix, (0,), b'b'),
    'array of objects': np.array([Other], dtype=object),
}


@pytest.mark.parametrize('name', ATTACKS)
def test_refuses_everything_else(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(value=ATTACKS[name]), 'bad.pth')
    with pytest.raises(
        Exception, match='(?i)unsupported global|A checkpoint may'
    ):
        load('bad.pth')
    assert not (tmp_path / 'attacked').exists()


def test_file_cannot_name_the_constructor_of_arrays(tmp_path):
    """numpy.ndarray would take raw bytes for pointers to objects."""
    if torch.__version__ < '2.6':
        pytest.skip('torch takes the name from the object before 2.6')
    bad = Call(np.ndarray, (1,), 'O', b'\0' * 8)
    torch.save(dict(value=bad), tmp_path / 'bad.pth')
    with pytest.raises(Exception, match='no arguments'):
        load(tmp_path / 'bad.pth')


def test_file_cannot_change_a_dtype(tmp_path):
    class Flags:
        def __reduce__(self):
            state = (3, '<', None, None, None, -1, -1, 63)
            return np.dtype, ('f8', False, True), state

    torch.save(Flags(), tmp_path / 'x.pth')
    assert load(tmp_path / 'x.pth').flags == np.dtype('f8').flags


def test_loader_of_the_fork_is_replaced(tmp_path, monkeypatch):
    """As above, where the original is installed."""
    if torch.__version__ < '2.6':
        pytest.skip('the fork loads without restriction before torch 2.6')

    def load_anything(path, map_location=None):
        return torch.load(path, map_location=map_location, weights_only=False)

    monkeypatch.setattr(
        mmengine_checkpoint, '_safe_torch_load', load_anything, raising=False
    )
    allow_mmengine_checkpoints()
    monkeypatch.chdir(tmp_path)
    torch.save(dict(value=ATTACKS['system']), 'bad.pth')
    with pytest.raises(Exception, match='(?i)unsupported global'):
        mmengine_checkpoint._safe_torch_load('bad.pth', map_location='cpu')
    assert not (tmp_path / 'attacked').exists()


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

"""Which library a config belongs to, and what happens where one is broken."""

import subprocess
import sys

import pytest
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from mmmobilemamba.apis import options
from mmmobilemamba.apis.config import check_host, load_config
from mmmobilemamba.datasets.data_paths import type_name

# A fresh interpreter in which mmpretrain fails as with transformers 5.
CODE = """
import sys

class Break:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'mmpretrain.models':
            raise TypeError('no such argument in transformers')

sys.meta_path.insert(0, Break)
from mmengine.registry import MODELS
MODELS.build(dict(type='mmmobilemamba.MobileMamba', arch='t2'))
MODELS.build(dict(
    type='mmmobilemamba.DeconvFPN', in_channels=[8], out_channels=8))
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.environment import collect_env
from mmmobilemamba.apis.inference import build_model
build_model(load_config(
    'configs/det/retinanet/retinanet_mobilemamba-b1_fpn_1x_coco.py'))
try:
    load_config('configs/cls/mobilemamba/mobilemamba-b1_8xb32_in1k.py')
except ImportError as error:
    print(error)
print(collect_env()[1])
"""


def test_a_library_that_breaks_leaves_the_others(repo):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CODE],
        cwd=repo,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    fault = 'TypeError: no such argument in transformers'
    assert run.stdout.count(fault) == 3  # warning, load_config, collect_env
    assert (run.stderr + run.stdout).count('is left out') == 1
    assert 'pip install "mmpretrain==1.2.0"' in run.stdout


@pytest.mark.parametrize('by_class', [False, True])
def test_scope_that_a_config_leaves_out(by_class):
    mmseg = pytest.importorskip('mmseg.models')
    kind = mmseg.EncoderDecoder if by_class else 'mmseg.EncoderDecoder'
    cfg = Config(dict(model=dict(type=kind)))
    check_host(cfg)
    assert cfg.default_scope == 'mmseg'


def test_config_of_python_classes(tmp_path):
    pytest.importorskip('mmdet')
    path = tmp_path / 'lazy.py'
    (tmp_path / 'base.py').write_text(
        'from mmengine.hooks import CheckpointHook\n'
        'default_hooks = dict(checkpoint=dict(type=CheckpointHook))\n'
    )
    path.write_text("""
from mmengine.config import read_base
with read_base():
    from .base import *
from mmdet.datasets import CocoDataset
from mmdet.models import RetinaNet
from mmengine.optim import OptimWrapper
model = dict(type=RetinaNet)
train_dataloader = dict(dataset=dict(type=CocoDataset))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(lr=1.0))
""")
    cfg = load_config(path, {'optim_wrapper.optimizer.lr': 2.0})
    assert cfg.default_scope == 'mmdet'
    assert type_name(cfg.train_dataloader.dataset) == 'CocoDataset'
    options.set_train_options(cfg, amp=True)
    assert type_name(cfg.optim_wrapper) in (
        'AmpOptimWrapper',
        'CPUAmpOptimWrapper',
    )
    assert type_name(cfg.default_hooks.checkpoint) == 'ResumableCheckpointHook'


def test_names_with_and_without_scope():
    for kind in ('OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper):
        assert type_name(dict(type=kind)) == 'OptimWrapper'
    assert type_name(None) == ''

"""Which library a config belongs to."""

from argparse import Namespace

import pytest

from mmmobilemamba.apis import options
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.datasets.data_paths import type_name


def test_scope_that_a_config_leaves_out(tmp_path):
    pytest.importorskip('mmseg')
    path = tmp_path / 'x.py'
    path.write_text("model = dict(type='mmseg.EncoderDecoder')")
    assert load_config(path).default_scope == 'mmseg'


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
    args = dict.fromkeys(['channels_last', 'auto_scale_lr', 'deterministic'])
    options.set_train_options(cfg, Namespace(amp=True, amp_dtype=None, **args))
    wanted = ('AmpOptimWrapper', 'CPUAmpOptimWrapper')
    assert type_name(cfg.optim_wrapper) in wanted
    assert type_name(cfg.default_hooks.checkpoint) == 'ResumableCheckpointHook'

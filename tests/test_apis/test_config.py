"""Which library a config belongs to."""

import pytest
from mmengine.config import Config

from mmmobilemamba.apis import options
from mmmobilemamba.apis.config import check_host, load_config
from mmmobilemamba.datasets.data_paths import type_name


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

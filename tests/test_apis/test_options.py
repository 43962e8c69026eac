"""What is read from a config, and what options do to it."""

from argparse import Namespace

import pytest
from mmengine.config import Config

from mmmobilemamba.apis import options
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.datasets.data_paths import type_name

AMP = dict(type='AmpOptimWrapper')
CPU_AMP = dict(type='mmmobilemamba.CPUAmpOptimWrapper')
BF16 = dict(dtype='bfloat16')


def set_train_options(cfg, **given):
    names = ('amp', 'amp_dtype', 'channels_last', 'auto_scale_lr', 'resume')
    names += ('deterministic', 'launcher', 'work_dir')
    args = dict.fromkeys(names) | given
    return options.set_train_options(cfg, Namespace(**args))


@pytest.mark.parametrize(
    ('device', 'wrapper', 'args', 'wanted'),
    [
        ('cuda', {}, dict(amp=True), dict(AMP, loss_scale='dynamic')),
        (
            *('cuda', dict(AMP, loss_scale=512.0, **BF16), dict(amp=True)),
            dict(AMP, loss_scale=512.0, **BF16),
        ),
        # Naming the type asks for it, and bfloat16 needs no scaling.
        (
            *('cuda', {}, dict(amp_dtype='bfloat16')),
            dict(AMP, loss_scale=dict(enabled=False), **BF16),
        ),
        ('cpu', {}, dict(amp_dtype='bfloat16'), dict(CPU_AMP, **BF16)),
        ('cpu', dict(AMP, loss_scale='dynamic'), {}, CPU_AMP),
        ('cpu', dict(type='OptimWrapper'), {}, dict(type='OptimWrapper')),
    ],
)
def test_mixed_precision(monkeypatch, device, wrapper, args, wanted):
    monkeypatch.setattr(options, 'get_device', lambda: device)
    clip = dict(clip_grad=dict(max_norm=1))
    cfg = Config(dict(optim_wrapper=dict(wrapper, **clip)))
    set_train_options(cfg, **args)
    assert cfg.optim_wrapper == dict(wanted, **clip)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
def test_loaders_of_mmpretrain_get_its_defaults(scope):
    loader = dict(num_workers=2)
    cfg = Config(dict(default_scope=scope, test_dataloader=loader))
    options.set_loader_defaults(cfg)
    found = {'collate_fn', 'persistent_workers'} & set(cfg.test_dataloader)
    assert len(found) == (2 if scope == 'mmpretrain' else 0)


def test_start():
    cfg = Config(dict(load_from='x.pth', default_hooks=None, optim_wrapper={}))
    assert set_train_options(cfg) is None and 'resume' not in cfg
    # What a run that resumes by itself falls back on.
    assert set_train_options(cfg, resume='auto') == 'x.pth'
    assert cfg.resume and cfg.load_from is None
    assert set_train_options(cfg, resume='y.pth') is None
    assert cfg.resume and cfg.load_from == 'y.pth'


@pytest.mark.parametrize('hook', [dict(type='TheirHook'), None])
def test_another_checkpoint_hook_stays(hook):
    cfg = Config(dict(optim_wrapper={}, default_hooks=dict(checkpoint=hook)))
    set_train_options(cfg)
    assert cfg.default_hooks.checkpoint == hook


def test_scope_that_a_config_leaves_out(tmp_path):
    pytest.importorskip('mmseg')
    path = tmp_path / 'x.py'
    path.write_text("model = dict(type='mmseg.EncoderDecoder')")
    assert load_config(path).default_scope == 'mmseg'


def test_config_of_python_classes(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'base.py').write_text(
        'from mmengine.hooks import CheckpointHook\n'
        'default_hooks = dict(checkpoint=dict(type=CheckpointHook))\n'
    )
    path = tmp_path / 'lazy.py'
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
    set_train_options(cfg, amp=True)
    assert type_name(cfg.optim_wrapper).endswith('AmpOptimWrapper')
    assert type_name(cfg.default_hooks.checkpoint) == 'ResumableCheckpointHook'

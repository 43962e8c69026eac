from argparse import Namespace

import pytest
from mmengine.config import Config

from mmmobilemamba.apis import options

AMP = dict(type='AmpOptimWrapper')
CPU_AMP = dict(type='mmmobilemamba.CPUAmpOptimWrapper')
BF16 = dict(dtype='bfloat16')


def set_train_options(cfg, amp=False, amp_dtype=None):
    off = dict.fromkeys(['channels_last', 'auto_scale_lr', 'deterministic'])
    args = Namespace(amp=amp, amp_dtype=amp_dtype, **off)
    options.set_train_options(cfg, args)


@pytest.mark.parametrize(
    ('device', 'wrapper', 'args', 'wanted'),
    [
        ('cuda', {}, (True,), dict(AMP, loss_scale='dynamic')),
        (
            'cuda',
            dict(AMP, loss_scale=512.0, **BF16),
            (True,),
            dict(AMP, loss_scale=512.0, **BF16),
        ),
        # Naming the type asks for it, and bfloat16 needs no scaling.
        (
            'cuda',
            {},
            (False, 'bfloat16'),
            dict(AMP, loss_scale=dict(enabled=False), **BF16),
        ),
        ('cpu', {}, (False, 'bfloat16'), CPU_AMP),
        ('cpu', dict(AMP, loss_scale='dynamic'), (), CPU_AMP),
        ('cpu', dict(type='OptimWrapper'), (), dict(type='OptimWrapper')),
        ('mps', {}, (True,), None),
        ('cpu', {}, (False, 'float16'), None),
    ],
)
def test_mixed_precision(monkeypatch, device, wrapper, args, wanted):
    monkeypatch.setattr(options, 'get_device', lambda: device)
    clip = dict(clip_grad=dict(max_norm=1))
    cfg = Config(dict(optim_wrapper=dict(wrapper, **clip)))
    if wanted is None:
        with pytest.raises(ValueError, match=device):
            set_train_options(cfg, *args)
        return
    set_train_options(cfg, *args)
    assert cfg.optim_wrapper == dict(wanted, **clip)


def test_tta_of_a_segmentor_needs_a_recipe():
    loader = dict(dataset=dict(type='X', pipeline=[dict(type='Load')]))
    cfg = Config(dict(default_scope='mmseg', model={}, test_dataloader=loader))
    args = Namespace(tta=True, show=False, show_dir=None, out=None)
    with pytest.raises(ValueError, match='tta_pipeline'):
        options.set_test_options(cfg, args)


def test_loaders_of_mmpretrain_get_its_defaults():
    for scope in ('mmpretrain', 'mmdet'):
        loader = dict(num_workers=2)
        cfg = Config(dict(default_scope=scope, test_dataloader=loader))
        options.set_loader_defaults(cfg)
        found = cfg.test_dataloader
        if scope == 'mmdet':
            assert 'collate_fn' not in found
        else:
            assert found.collate_fn.type == 'default_collate'
            assert found.persistent_workers is True


def test_start(tmp_path):
    path = str(tmp_path / 'x.pth')
    cfg = Config(dict(load_from=path))
    with pytest.raises(FileNotFoundError, match='x.pth'):
        options.set_start(cfg, None)
    (tmp_path / 'x.pth').touch()
    assert options.set_start(cfg, None) is None and 'resume' not in cfg
    # What a run that resumes by itself falls back on.
    assert options.set_start(cfg, 'auto') == path
    assert cfg.resume and cfg.load_from is None
    assert options.set_start(cfg, path) is None
    assert cfg.resume and cfg.load_from == path


@pytest.mark.parametrize('hook', [dict(type='TheirHook'), None])
def test_another_checkpoint_hook_stays(hook):
    cfg = Config(dict(optim_wrapper={}, default_hooks=dict(checkpoint=hook)))
    set_train_options(cfg)
    assert cfg.default_hooks.checkpoint == hook

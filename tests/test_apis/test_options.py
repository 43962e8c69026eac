import pytest
from mmengine.config import Config

from mmmobilemamba.apis import options
from mmmobilemamba.datasets.data_paths import type_name

CPU_AMP = 'mmmobilemamba.CPUAmpOptimWrapper'
BF16 = dict(dtype='bfloat16')


@pytest.mark.parametrize(
    ('device', 'wrapper', 'args', 'wanted'),
    [
        ('cuda', {}, (True,), dict(type='AmpOptimWrapper', scale='dynamic')),
        (
            'cuda',
            dict(type='AmpOptimWrapper', loss_scale=512.0, **BF16),
            (True,),
            dict(type='AmpOptimWrapper', scale=512.0, **BF16),
        ),
        # Naming the type asks for it, and bfloat16 needs no scaling.
        (
            'cuda',
            {},
            (False, 'bfloat16'),
            dict(type='AmpOptimWrapper', scale=dict(enabled=False), **BF16),
        ),
        ('cpu', {}, (False, 'bfloat16'), dict(type=CPU_AMP)),
        (
            'cpu',
            dict(type='OptimWrapper'),
            (False,),
            dict(type='OptimWrapper'),
        ),
        ('mps', {}, (True,), 'mps'),
    ],
)
def test_mixed_precision(monkeypatch, device, wrapper, args, wanted):
    monkeypatch.setattr(options, 'get_device', lambda: device)
    clip = dict(clip_grad=dict(max_norm=1))
    cfg = Config(dict(optim_wrapper=dict(wrapper, **clip)))
    if device == wanted:
        with pytest.raises(ValueError, match=device):
            options.set_train_options(cfg, *args)
        return
    options.set_train_options(cfg, *args)
    if 'scale' in wanted:
        wanted['loss_scale'] = wanted.pop('scale')
    assert cfg.optim_wrapper == dict(wanted, **clip)


def test_tta_of_a_segmentor_needs_a_recipe():
    loader = dict(dataset=dict(type='X', pipeline=[dict(type='Load')]))
    cfg = Config(dict(default_scope='mmseg', test_dataloader=loader))
    with pytest.raises(ValueError, match='tta_pipeline'):
        options.set_test_options(cfg, tta=True)


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


@pytest.mark.parametrize(
    ('hook', 'kind'),
    [
        ({}, 'ResumableCheckpointHook'),
        (dict(type='CheckpointHook', interval=7), 'ResumableCheckpointHook'),
        (dict(type='TheirCheckpointHook'), 'TheirCheckpointHook'),
        (None, ''),
    ],
)
def test_checkpoints_of_mmengine_become_resumable(hook, kind):
    hooks = {} if hook == {} else dict(checkpoint=hook)
    cfg = Config(dict(optim_wrapper={}, default_hooks=hooks))
    options.set_train_options(cfg)
    found = cfg.default_hooks.checkpoint
    assert type_name(found) == kind
    if hook:
        assert found.get('interval') == hook.get('interval')

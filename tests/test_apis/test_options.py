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
            dict(type='AmpOptimWrapper', loss_scale='dynamic'),
            (True,),
            dict(type=CPU_AMP),
        ),
        (
            'cpu',
            dict(type='OptimWrapper'),
            (False,),
            dict(type='OptimWrapper'),
        ),
        ('cpu', {}, (False, 'float16'), 'float16'),
        ('mps', {}, (True,), 'mps'),
    ],
)
def test_mixed_precision(monkeypatch, device, wrapper, args, wanted):
    monkeypatch.setattr(options, 'get_device', lambda: device)
    clip = dict(clip_grad=dict(max_norm=1))
    cfg = Config(dict(optim_wrapper=dict(wrapper, **clip)))
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=wanted):
            options.set_train_options(cfg, *args)
        return
    options.set_train_options(cfg, *args)
    if 'scale' in wanted:
        wanted['loss_scale'] = wanted.pop('scale')
    assert cfg.optim_wrapper == dict(wanted, **clip)


def evaluation(scope, **other):
    dataset = dict(type='X', pipeline=[dict(type='Load'), dict(type='Pack')])
    return Config(
        dict(
            default_scope=scope,
            model=dict(type='M'),
            visualizer=dict(type='V'),
            test_dataloader=dict(dataset=dict(type='R', dataset=dataset)),
            **other,
        )
    )


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_tta_flips_by_default(scope):
    cfg = evaluation(scope)
    options.set_test_options(cfg, tta=True)
    assert cfg.model.module.type == 'M'
    load, augment = cfg.test_dataloader.dataset.dataset.pipeline
    assert load.type == 'Load'
    flips, (pack,) = augment.transforms
    assert [flip.prob for flip in flips] == [1.0, 0.0]
    if scope == 'mmdet':
        # Boxes are flipped back by what is packed with them.
        assert 'flip_direction' in pack.meta_keys


def test_tta_of_a_segmentor_needs_a_recipe():
    with pytest.raises(ValueError, match='tta_pipeline'):
        options.set_test_options(evaluation('mmseg'), tta=True)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_drawing_adds_the_hook_of_the_library(scope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = evaluation(scope)
    options.set_test_options(cfg, show_dir='drawn')
    hook = cfg.default_hooks.visualization
    assert hook.interval == 1
    # Absolute, because MMDetection puts a relative one below its log.
    places = dict(
        mmdet=hook.get('test_out_dir'),
        mmseg=cfg.visualizer.get('save_dir'),
        mmpretrain=hook.get('out_dir'),
    )
    assert places[scope] == str(tmp_path / 'drawn')


def test_loaders_of_mmpretrain_get_its_defaults():
    cfg = evaluation('mmpretrain')
    cfg.test_dataloader.num_workers = 2
    options.set_loader_defaults(cfg)
    assert cfg.test_dataloader.collate_fn.type == 'default_collate'
    assert cfg.test_dataloader.persistent_workers is True
    cfg = evaluation('mmdet')
    options.set_loader_defaults(cfg)
    assert 'collate_fn' not in cfg.test_dataloader


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
        (dict(type='mmengine.CheckpointHook'), 'ResumableCheckpointHook'),
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

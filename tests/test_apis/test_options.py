import pytest
from mmengine.config import Config

from mmmobilemamba.apis import options as run_setup


@pytest.fixture
def device(monkeypatch):
    """Give a function that sets the device that mmengine would see."""

    def use(name):
        monkeypatch.setattr(run_setup, 'get_device', lambda: name)

    return use


def training(**wrapper):
    return Config(dict(optim_wrapper=dict(optimizer=dict(), **wrapper)))


def test_amp_with_cuda_is_mmengines(device):
    device('cuda')
    cfg = training(type='OptimWrapper', clip_grad=dict(max_norm=1))
    run_setup.set_precision(cfg, amp=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.clip_grad.max_norm == 1


def test_amp_with_cuda_keeps_what_the_config_says(device):
    device('cuda')
    cfg = training(type='AmpOptimWrapper', loss_scale=512.0, dtype='bfloat16')
    run_setup.set_precision(cfg, amp=True)
    assert cfg.optim_wrapper.loss_scale == 512.0
    assert cfg.optim_wrapper.dtype == 'bfloat16'


@pytest.mark.parametrize(
    ('dtype', 'loss_scale'),
    [('float16', 'dynamic'), ('bfloat16', dict(enabled=False))],
)
def test_type_of_amp_by_name(device, dtype, loss_scale):
    """Naming the type asks for mixed precision; bfloat16 needs no scaling."""
    device('cuda')
    cfg = training()
    run_setup.set_precision(cfg, amp=False, dtype=dtype)
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', dtype)
    assert wrapper.loss_scale == loss_scale


def test_cpu_has_bfloat16_only(device):
    device('cpu')
    cfg = training()
    run_setup.set_precision(cfg, amp=False, dtype='bfloat16')
    assert cfg.optim_wrapper.type == 'mmmobilemamba.CPUAmpOptimWrapper'
    with pytest.raises(ValueError, match='float16'):
        run_setup.set_precision(training(), amp=False, dtype='float16')


def test_amp_on_a_cpu_is_ours(device):
    device('cpu')
    cfg = training(type='AmpOptimWrapper', loss_scale='dynamic')
    run_setup.set_precision(cfg, amp=True)
    assert cfg.optim_wrapper == dict(
        type='mmmobilemamba.CPUAmpOptimWrapper', optimizer=dict()
    )


def test_amp_elsewhere_is_refused(device):
    device('mps')
    with pytest.raises(ValueError, match='mps'):
        run_setup.set_precision(training(), amp=True)


def test_without_amp_nothing_changes(device):
    device('cpu')
    cfg = training(type='OptimWrapper')
    run_setup.set_precision(cfg, amp=False)
    assert cfg.optim_wrapper.type == 'OptimWrapper'


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
    run_setup.set_tta(cfg)
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
        run_setup.set_tta(evaluation('mmseg'))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_drawing_adds_the_hook_of_the_library(scope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = evaluation(scope)
    run_setup.set_visualization(cfg, False, 'drawn', 2.0)
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
    run_setup.set_loader_defaults(cfg)
    assert cfg.test_dataloader.collate_fn.type == 'default_collate'
    assert cfg.test_dataloader.persistent_workers is True
    cfg = evaluation('mmdet')
    run_setup.set_loader_defaults(cfg)
    assert 'collate_fn' not in cfg.test_dataloader


def test_checkpoints_of_mmengine_become_resumable():
    ours = 'mmmobilemamba.ResumableCheckpointHook'
    hook = dict(type='CheckpointHook', interval=7, save_best='auto')
    cfg = Config(dict(default_hooks=dict(checkpoint=hook)))
    run_setup.set_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == dict(hook, type=ours)
    cfg = Config()
    run_setup.set_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint.type == ours


@pytest.mark.parametrize('hook', [None, dict(type='TheirCheckpointHook')])
def test_other_checkpoint_hooks_are_left_alone(hook):
    cfg = Config(dict(default_hooks=dict(checkpoint=hook)))
    run_setup.set_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == hook

"""What the tools do to a config before a run."""

import os
import os.path as osp
from argparse import Namespace
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import OPTIMIZERS, RUNNERS
from mmengine.runner import Runner

from ..datasets.data_paths import first_dataset, type_name

# Host library -> hook that draws, its visualizer; others draw as MMDetection.
_DRAWING = {
    'mmdet': ('DetVisualizationHook', 'DetLocalVisualizer'),
    'mmseg': ('SegVisualizationHook', 'mmmobilemamba.SegLocalVisualizer'),
    'mmpretrain': ('VisualizationHook', 'UniversalVisualizer'),
}
_NMS = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
_TTA_MODELS = {
    'mmdet': dict(type='DetTTAModel', tta_cfg=_NMS),
    'mmpretrain': dict(type='AverageClsScoreTTA'),
}


def set_train_options(cfg: Config, args: Namespace) -> str | None:
    """Do to the config of a training what the options of train.py say, or
    raise a ValueError; checkpoints become whole and resumable.

    Returns the weights to start from where ``--resume auto`` finds nothing.
    """
    _set_run_options(cfg, args)
    auto = args.resume == 'auto'
    weights = cfg.get('load_from') if auto else None
    if args.resume:
        cfg.resume, cfg.load_from = True, None if auto else args.resume
    _set_precision(cfg, args.amp, args.amp_dtype)
    if args.channels_last:
        hook = dict(type='mmmobilemamba.ChannelsLastHook')
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]
    if args.auto_scale_lr:
        cfg.merge_from_dict({'auto_scale_lr.enable': True})
    if args.deterministic:
        randomness = cfg.setdefault('randomness', ConfigDict())
        # Without a seed mmengine would draw one.
        randomness.update(deterministic=True, seed=randomness.get('seed') or 0)
        # cuBLAS reads it when it starts; torch refuses to go on without.
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    if type_name(hook) == 'CheckpointHook':
        hook.type = 'mmmobilemamba.ResumableCheckpointHook'
    return weights


def set_test_options(cfg: Config, args: Namespace) -> None:
    """Do to the config of a test what the options of test.py say, or raise a
    ValueError."""
    _set_run_options(cfg, args)
    draw = args.show or args.show_dir
    if args.tta and draw and cfg.default_scope == 'mmpretrain':
        raise ValueError('MMPretrain cannot draw what --tta augments.')
    if args.tta:
        _set_tta(cfg)
    if args.out:
        _set_predictions_file(cfg, args.out)
    if draw:
        _set_visualization(cfg, args)
    if cfg.get('test_cfg') and get_device() == 'cpu':
        cfg.test_cfg.pop('fp16', None)  # a CPU's suppression wants float32


def _set_run_options(cfg: Config, args: Namespace) -> None:
    cfg.launcher = args.launcher
    name = osp.splitext(osp.basename(str(cfg.filename)))[0]
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    set_loader_defaults(cfg)


def set_loader_defaults(cfg: Config) -> None:
    """Give data loaders of MMPretrain what its own tools give them."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader and cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            workers = loader.get('num_workers', 0)
            loader.setdefault('persistent_workers', workers > 0)


def build_runner(cfg: Config) -> Runner:
    """Build the Runner of a config, or the one that ``runner_type`` names."""
    return RUNNERS.get(cfg.get('runner_type', 'Runner')).from_cfg(cfg)


def check_training(runner: Runner) -> None:
    """Raise a ValueError for a training without optimizer or batches."""
    optimizer = runner.cfg.optim_wrapper.get('optimizer') or {}
    kind = optimizer.get('type', '')
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if kind and isinstance(kind, str) and registry.get(kind) is None:
            raise ValueError(f'optim_wrapper.optimizer.type={kind!r} is none.')
    loader = runner.train_dataloader
    if not len(loader):
        raise ValueError(
            f'The training set has {len(loader.dataset)} samples, fewer than '
            f'a batch of {loader.batch_size}.'
        )


def check_image_names(runner: Runner) -> None:
    """Raise a ValueError where images of one name would overwrite another."""
    dataset, known = runner.test_dataloader.dataset, {}
    for index in range(len(dataset)):
        path = str(dataset.get_data_info(index).get('img_path', index))
        other = known.setdefault(osp.basename(path), path)
        if other != path:
            raise ValueError(
                f'{path} has the name of {other}, and would overwrite it.'
            )


def _set_precision(cfg: Config, amp: bool, dtype: str | None) -> None:
    """Choose the optimizer wrapper for the device at hand."""
    wrapper, cpu = cfg.optim_wrapper, get_device() == 'cpu'
    kind = type_name(wrapper) or 'OptimWrapper'
    # A config that asks for mixed precision gets it on a CPU, too.
    if not (amp or dtype or (cpu and kind == 'AmpOptimWrapper')):
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        raise ValueError(f'--amp cannot replace optim_wrapper.type={kind!r}.')
    if dtype:
        wrapper.dtype = dtype
    if cpu:
        wrapper.type = 'mmmobilemamba.CPUAmpOptimWrapper'
        for key in ('loss_scale', 'use_fsdp'):
            wrapper.pop(key, None)
    else:
        wrapper.type = 'AmpOptimWrapper'
        # bfloat16 has the range of float32 and needs no scaling.
        bfloat16 = wrapper.get('dtype') == 'bfloat16'
        scale = dict(enabled=False) if bfloat16 else 'dynamic'
        wrapper.setdefault('loss_scale', scale)


def drawing_config(visualizer: dict, scope: str) -> dict:
    """Return the config of a visualizer, with ours for MMSegmentation's."""
    _, kind = _DRAWING.get(scope, _DRAWING['mmdet'])
    own = type_name(visualizer) in ('', kind.rpartition('.')[2])
    return dict(visualizer, type=kind) if own else visualizer


def _set_visualization(cfg: Config, args: Namespace) -> None:
    """Switch the drawing hook of the library on."""
    scope = cfg.get('default_scope')
    hook_type, _ = _DRAWING.get(scope, _DRAWING['mmdet'])
    backends = dict(vis_backends=[dict(type='LocalVisBackend')])
    cfg.visualizer = drawing_config(cfg.get('visualizer') or backends, scope)
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.get('visualization') or ConfigDict(type=hook_type)
    hooks.visualization = hook
    hook.update(show=args.show, interval=1, wait_time=args.wait_time)
    hook['enable' if scope == 'mmpretrain' else 'draw'] = True
    folder = osp.abspath(args.show_dir) if args.show_dir else None
    if folder and scope == 'mmseg':  # through its visualizer's backends
        cfg.visualizer.save_dir = folder
    elif folder:
        hook['out_dir' if scope == 'mmpretrain' else 'test_out_dir'] = folder


def _set_predictions_file(cfg: Config, out: str) -> None:
    """Let a metric of the library write the predictions."""
    metrics = cfg.get('test_evaluator') or []
    metrics = metrics if isinstance(metrics, list) else [metrics]
    if cfg.get('default_scope') == 'mmseg':
        for metric in metrics:
            metric.output_dir = out
        return
    # MMDetection has one of its own, which packs masks.
    det = cfg.get('default_scope') == 'mmdet'
    dump = dict(type='DumpDetResults' if det else 'DumpResults')
    cfg.test_evaluator = [*metrics, dict(dump, out_file_path=out)]


def _set_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation; detectors and classifiers
    get a horizontal flip where the config says nothing."""
    dataset = first_dataset(cfg.test_dataloader.dataset)
    scope = cfg.get('default_scope')
    head = cfg.model.get('roi_head') or {}
    if 'tta_model' not in cfg and head.get('mask_head'):
        raise ValueError(
            'MMDetection cannot merge masks; for boxes: --tta --allow-partial '
            '--cfg-options model.roi_head.mask_head=None '
            'model.roi_head.mask_roi_extractor=None test_evaluator.metric=bbox'
        )
    if scope in _TTA_MODELS:
        *steps, pack = deepcopy(dataset.pipeline)
        pack.pop('meta_keys', None)  # the default ones have the flip
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        augment = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.setdefault('tta_pipeline', [*steps, augment])
        cfg.setdefault('tta_model', _TTA_MODELS[scope])
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)

"""What the tools do to a config before a run."""

import logging
import os
import os.path as osp
from argparse import Namespace
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.checkpoint import check_checkpoint_file
from ..datasets.data_paths import first_dataset, type_name

# Host library -> hook that draws, and visualizer that it draws with.
DRAWING = {
    'mmdet': ('DetVisualizationHook', 'DetLocalVisualizer'),
    'mmseg': ('SegVisualizationHook', 'mmmobilemamba.SegLocalVisualizer'),
    'mmpretrain': ('VisualizationHook', 'UniversalVisualizer'),
}


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Choose the folder of logs and checkpoints: the given one, the config's,
    or ``work_dirs/<name of the config>``."""
    name = osp.splitext(osp.basename(cfg.filename))[0]
    default = osp.join('work_dirs', name)
    cfg.work_dir = work_dir or cfg.get('work_dir') or default


def set_start(cfg: Config, resume: str | None) -> str | None:
    """Settle what a training starts from, by ``--resume`` or the config.

    Returns the weights to take where a run that resumes by itself, ``'auto'``,
    finds nothing to resume from. Raises FileNotFoundError where a checkpoint
    is named that does not exist.
    """
    weights = None
    if resume == 'auto':
        weights, cfg.load_from, cfg.resume = cfg.get('load_from'), None, True
    elif resume is not None:
        cfg.load_from, cfg.resume = resume, True
    teacher = (cfg.get('model') or {}).get('teacher_ckpt')
    for path in filter(None, (weights, cfg.get('load_from'), teacher)):
        check_checkpoint_file(path)
    return weights


def set_train_options(cfg: Config, args: Namespace) -> None:
    """Do to the config of a training what the options of train.py say.

    Checkpoints become whole and resumable unless the config has a hook of its
    own for them. Raises ValueError where the config cannot do what is asked.
    """
    _set_precision(cfg, args.amp, args.amp_dtype)
    if args.channels_last:
        hook = dict(type='mmmobilemamba.ChannelsLastHook')
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]
    if args.auto_scale_lr:
        auto = cfg.get('auto_scale_lr')
        if not auto or 'base_batch_size' not in auto:
            raise ValueError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size in the '
                'config: the batch over all processes that its rate is for.'
            )
        auto.enable = True
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
    set_loader_defaults(cfg)


def set_test_options(cfg: Config, args: Namespace) -> None:
    """Do to the config of a test what the options of test.py say, or raise a
    ValueError where the config or its library cannot do that."""
    draw = args.show or args.show_dir
    if args.tta and draw and cfg.default_scope == 'mmpretrain':
        raise ValueError(
            "--show and --show-dir: MMPretrain draws the network's input, "
            'which --tta augments; draw without it.'
        )
    if args.tta:
        _set_tta(cfg)
    if args.out:
        _set_predictions_file(cfg, args.out)
    if draw:
        _set_visualization(cfg, args.show, args.show_dir, args.wait_time)
    test_cfg = cfg.get('test_cfg') or {}
    if test_cfg.get('fp16') and get_device() == 'cpu':
        # A CPU's suppression wants float32.
        test_cfg.fp16 = False
        text = 'test_cfg.fp16 is for GPUs: computing in float32.'
        print_log(text, 'current', logging.WARNING)
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
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def check_batches(runner: Runner) -> None:
    """Raise a ValueError where a training has no batch to train on."""
    loader = runner.train_dataloader
    if not len(loader):
        raise ValueError(
            f'The training set has {len(loader.dataset)} samples, fewer than '
            f'a batch of {loader.batch_size}.'
        )


def check_image_names(runner: Runner) -> None:
    """Raise a ValueError where drawn images would overwrite each other.

    The libraries write each under the name of its image, without its folder.
    """
    dataset, known = runner.test_dataloader.dataset, {}
    for index in range(len(dataset)):
        path = str(dataset.get_data_info(index).get('img_path', index))
        other = known.setdefault(osp.basename(path), path)
        if other != path:
            raise ValueError(
                f'{other} and {path} have one name, under which one would '
                'overwrite the other in --show-dir and --out.'
            )


def _set_precision(cfg: Config, amp: bool, dtype: str | None) -> None:
    """Choose the optimizer wrapper for the device at hand."""
    wrapper, cpu = cfg.optim_wrapper, get_device() == 'cpu'
    kind = type_name(wrapper) or 'OptimWrapper'
    # A config that asks for mixed precision gets it on a CPU, too.
    if not (amp or dtype or (cpu and kind == 'AmpOptimWrapper')):
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        raise ValueError(
            '--amp replaces OptimWrapper or AmpOptimWrapper, got '
            f'optim_wrapper.type={kind!r}.'
        )
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
    _, kind = DRAWING.get(scope, DRAWING['mmdet'])
    if type_name(visualizer) in ('', kind.rpartition('.')[2]):
        return dict(visualizer, type=kind)
    return visualizer


def _set_visualization(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Switch the drawing hook of the library on."""
    scope = cfg.get('default_scope')
    # Libraries on top of MMDetection draw as it does.
    hook_type, _ = DRAWING.get(scope, DRAWING['mmdet'])
    backends = dict(vis_backends=[dict(type='LocalVisBackend')])
    cfg.visualizer = drawing_config(cfg.get('visualizer') or backends, scope)
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('visualization', ConfigDict(type=hook_type))
    hook.update(show=show, interval=1, wait_time=wait_time)
    folder = osp.abspath(show_dir) if show_dir else None
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder)
        return
    hook.draw = True
    if folder and scope == 'mmseg':  # draws through its visualizer's backends
        cfg.visualizer.save_dir = folder
    elif folder:
        hook.test_out_dir = folder


def _set_predictions_file(cfg: Config, out: str) -> None:
    """Let a metric of the library write the predictions."""
    metrics = cfg.get('test_evaluator') or []
    metrics = metrics if isinstance(metrics, list) else [metrics]
    scope = cfg.get('default_scope')
    if scope == 'mmseg':
        for metric in metrics:
            metric.output_dir = out
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out must end in .pkl or .pickle, got {out}.')
    # MMDetection has one of its own, which packs masks.
    kind = 'DumpDetResults' if scope == 'mmdet' else 'DumpResults'
    cfg.test_evaluator = [*metrics, dict(type=kind, out_file_path=out)]


def _set_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation; detectors and classifiers
    get a horizontal flip where the config says nothing."""
    scope, model = cfg.get('default_scope'), cfg.model
    heads = (model, model.get('roi_head') or {})
    if scope == 'mmdet' and any(head.get('mask_head') for head in heads):
        raise ValueError(
            '--tta: MMDetection merges boxes, not the masks of this model.'
        )
    dataset = first_dataset(cfg.test_dataloader.dataset)
    *steps, pack = deepcopy(dataset.pipeline)
    if scope == 'mmdet':
        nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        cfg.setdefault('tta_model', dict(type='DetTTAModel', tta_cfg=nms))
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape')
        keys += ('scale_factor', 'flip', 'flip_direction')
        pack = dict(type='PackDetInputs', meta_keys=keys)
    elif scope == 'mmpretrain':
        cfg.setdefault('tta_model', dict(type='AverageClsScoreTTA'))
    elif 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError('--tta needs tta_model and tta_pipeline in a config.')
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    augment = dict(type='TestTimeAug', transforms=[flips, [pack]])
    dataset.pipeline = cfg.get('tta_pipeline', [*steps, augment])
    cfg.model = ConfigDict(**cfg.tta_model, module=model)

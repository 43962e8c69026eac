"""What the tools do to a config before a run."""

import logging
import os
import os.path as osp
import sys
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.checkpoint import check_checkpoint_file
from .config import type_name

# Devices that mmengine's AmpOptimWrapper accepts.
_AMP_DEVICES = ('cuda', 'npu', 'mlu', 'musa')
# Hook that draws, and visualizer that it draws with.
DRAWING = {
    'mmdet': ('DetVisualizationHook', 'DetLocalVisualizer'),
    'mmseg': ('SegVisualizationHook', 'SegLocalVisualizer'),
    'mmpretrain': ('VisualizationHook', 'UniversalVisualizer'),
}


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Choose and make the folder that takes logs and checkpoints.

    Args:
        cfg (Config): Config read from a file.
        work_dir (str, optional): Folder; None keeps that of the config, or
            takes ``work_dirs/<name of the config>``.

    Raises:
        ValueError: The path cannot be a folder that files go to.
    """
    if work_dir is None:
        name = osp.splitext(osp.basename(cfg.filename))[0]
        work_dir = cfg.get('work_dir') or osp.join('work_dirs', name)
    try:
        os.makedirs(work_dir, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f'work_dir {work_dir} cannot be made: {error.strerror}.'
        ) from error
    if not os.access(work_dir, os.W_OK):
        raise ValueError(f'work_dir {work_dir} is not writable.')
    cfg.work_dir = work_dir


def set_start(cfg: Config, resume: str | None) -> str | None:
    """Settle what a training is to start from.

    Args:
        cfg (Config): Config of a training.
        resume (str, optional): Checkpoint to resume from, or ``'auto'`` for
            the latest one of the work dir. None leaves it to the config.

    Returns:
        str: Weights to start from where a run that resumes by itself finds
        nothing to resume from; None where there are none.

    Raises:
        FileNotFoundError: A checkpoint is named that does not exist.
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


def set_precision(cfg: Config, amp: bool, dtype: str | None = None) -> None:
    """Choose the optimizer wrapper for the device at hand.

    Args:
        cfg (Config): Config of a training.
        amp (bool): Train in mixed precision: mmengine's float16 with loss
            scaling on an accelerator, bfloat16 of our own on a CPU.
        dtype (str, optional): ``'float16'`` or ``'bfloat16'`` for mixed
            precision in that type. Defaults to None, which leaves the choice
            to the config and the device.

    Raises:
        ValueError: The wrapper of the config, its dtype or the device cannot
            do that.
    """
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        raise ValueError('The config has no optim_wrapper to train with.')
    kind = type_name(wrapper) or 'OptimWrapper'
    device = get_device()
    if dtype:
        amp, wrapper.dtype = True, dtype
    if not amp:
        if kind == 'AmpOptimWrapper' and device not in _AMP_DEVICES:
            raise ValueError(
                "optim_wrapper.type='AmpOptimWrapper' needs one of "
                f'{", ".join(_AMP_DEVICES)}, and this machine has {device}. '
                'Pass --amp for bfloat16 on the CPU, or --cfg-options '
                'optim_wrapper.type=OptimWrapper.'
            )
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        raise ValueError(
            '--amp replaces OptimWrapper or AmpOptimWrapper, got '
            f'optim_wrapper.type={kind!r}.'
        )
    if device in _AMP_DEVICES:
        wrapper.type = 'AmpOptimWrapper'
        # bfloat16 has the range of float32 and needs no scaling.
        scaled = wrapper.get('dtype') != 'bfloat16'
        wrapper.setdefault(
            'loss_scale', 'dynamic' if scaled else dict(enabled=False)
        )
        return
    if device != 'cpu':
        raise ValueError(
            f'--amp works on {", ".join(_AMP_DEVICES)} and cpu, and this '
            f'machine has {device}.'
        )
    dtype = wrapper.get('dtype') or 'bfloat16'
    if dtype != 'bfloat16':
        raise ValueError(
            '--amp computes in bfloat16 on a CPU, got '
            f'optim_wrapper.dtype={dtype!r}.'
        )
    for key in ('loss_scale', 'use_fsdp', 'dtype'):
        wrapper.pop(key, None)
    wrapper.type = 'mmmobilemamba.CPUAmpOptimWrapper'


def set_channels_last(cfg: Config) -> None:
    """Keep weights and batches of a run in channels_last memory format."""
    cfg.custom_hooks = [
        *(cfg.get('custom_hooks') or ()),
        dict(type='mmmobilemamba.ChannelsLastHook'),
    ]


def set_checkpoints(cfg: Config) -> None:
    """Save checkpoints that are whole and that training goes on from exactly.

    Args:
        cfg (Config): Config of a training; a checkpoint hook other than
            mmengine's, or none, is left as it is.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault(
        'checkpoint', ConfigDict(type='CheckpointHook', interval=1)
    )
    if hook and type_name(hook) == 'CheckpointHook':
        hook.type = 'mmmobilemamba.ResumableCheckpointHook'


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate to the batch that the run really has.

    Args:
        cfg (Config): Config of a training.

    Raises:
        ValueError: The config does not say for which batch its rate is.
    """
    auto = cfg.get('auto_scale_lr')
    if not auto or 'base_batch_size' not in auto:
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the '
            'config, the batch size over all processes that its learning '
            'rate was chosen for.'
        )
    auto.enable = True


def set_deterministic(cfg: Config) -> None:
    """Let two runs of a training on one machine give equal bits.

    mmengine draws a seed where a config has none; here it is 0 then. Results
    depend on the number of threads and of loading processes all the same.

    Args:
        cfg (Config): Config of a training.
    """
    randomness = cfg.setdefault('randomness', ConfigDict())
    randomness.deterministic = True
    if randomness.get('seed') is None:
        randomness.seed = 0
    # cuBLAS reads it when it starts; torch refuses to go on without.
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')


def set_loader_defaults(cfg: Config) -> None:
    """Give data loaders of MMPretrain what its own tools give them.

    Args:
        cfg (Config): Config of a run; those of other libraries are left as
            they are.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        loader.setdefault('collate_fn', dict(type='default_collate'))
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault(
            'persistent_workers', loader.get('num_workers', 0) > 0
        )


def set_visualization(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Draw the predictions of a test.

    Args:
        cfg (Config): Config of a test.
        show (bool): Open a window for each image.
        show_dir (str, optional): Folder that takes the drawn images.
        wait_time (float): Seconds that a window stays.

    Raises:
        ValueError: The library of the config has no drawing hook, or the
            machine no display.
    """
    displays = ('DISPLAY', 'WAYLAND_DISPLAY')
    if show and sys.platform == 'linux' and not any(map(os.getenv, displays)):
        raise ValueError('--show needs a display; use --show-dir instead.')
    scope = cfg.get('default_scope')
    if scope not in DRAWING:
        raise ValueError(
            '--show and --show-dir know the drawing hooks of '
            f'{", ".join(DRAWING)}, not of {scope!r}.'
        )
    hook_type, visualizer = DRAWING[scope]
    if not cfg.get('visualizer'):
        backends = [dict(type='LocalVisBackend')]
        cfg.visualizer = dict(type=visualizer, vis_backends=backends)
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('visualization', ConfigDict(type=hook_type))
    folder = osp.abspath(show_dir) if show_dir else None
    hook.update(show=show, interval=1)
    if show:
        hook.wait_time = wait_time
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder)
        return
    hook.draw = True
    if folder and scope == 'mmdet':
        hook.test_out_dir = folder
    elif folder:
        # MMSegmentation draws through the visualizer's own backends.
        cfg.visualizer.save_dir = folder


def set_predictions_file(cfg: Config, out: str) -> None:
    """Write the predictions of a test: by the library's own metrics.

    Args:
        cfg (Config): Config of a test.
        out (str): A .pkl file; a folder of label images for segmentors.

    Raises:
        ValueError: The name is no pickle's.
    """
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


def set_test_precision(cfg: Config) -> None:
    """Test in float32 where there is no GPU: a CPU's suppression wants it."""
    test_cfg = cfg.get('test_cfg') or {}
    if test_cfg.get('fp16') and get_device() == 'cpu':
        test_cfg.fp16 = False
        print_log(
            'test_cfg.fp16 is for GPUs: computing in float32.',
            'current',
            logging.WARNING,
        )


def set_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation.

    MMDetection and MMPretrain add a horizontal flip where a config says
    nothing; MMSegmentation's data set configs say what to do.

    Args:
        cfg (Config): Config of a test.

    Raises:
        ValueError: The config holds no recipe, and its library no default,
            or the model predicts masks, which MMDetection cannot merge.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmdet' and any(
        part.get('mask_head')
        for part in (cfg.model, cfg.model.get('roi_head') or {})
    ):
        raise ValueError(
            '--tta: MMDetection merges boxes, not the masks of this model.'
        )
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    if scope == 'mmdet':
        nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        cfg.setdefault('tta_model', dict(type='DetTTAModel', tta_cfg=nms))
    elif scope == 'mmpretrain':
        cfg.setdefault('tta_model', dict(type='AverageClsScoreTTA'))
    if scope in ('mmdet', 'mmpretrain'):
        flipped = _with_flip(dataset.pipeline, scope)
        cfg.setdefault('tta_pipeline', flipped)
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError(
            '--tta needs tta_model and tta_pipeline in the config.'
        )
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def build_runner(cfg: Config) -> Runner:
    """Build the Runner of a config; nothing is loaded or run.

    Args:
        cfg (Config): Config of a run; ``runner_type`` names another one, such
            as FlexibleRunner.

    Returns:
        Runner: The Runner.
    """
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def innermost_dataset(dataset: ConfigDict) -> ConfigDict:
    """Return the data set that wrappers such as RepeatDataset hold.

    Args:
        dataset (ConfigDict): Config of a data set.

    Returns:
        ConfigDict: Config of the one within that reads the files.
    """
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _with_flip(pipeline: list, scope: str) -> list:
    """Return a test pipeline that ends in both flips of the image."""
    pack = deepcopy(pipeline[-1])
    if scope == 'mmdet':
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape')
        keys += ('scale_factor', 'flip', 'flip_direction')
        pack = dict(type='PackDetInputs', meta_keys=keys)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    return [
        *deepcopy(pipeline[:-1]),
        dict(type='TestTimeAug', transforms=[flips, [pack]]),
    ]

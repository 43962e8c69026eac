"""One recipe that trains any classifier from scratch on given images."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ..datasets.image_folders import ImageSplit
from ..models.backbones.arch import ARCH_SETTINGS, resolve_arch
from ..models.backbones.timm import check_timm_name, import_timm

_BASES = """
_base_ = [
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
"""
_PREFIX = 'mobilemamba_'
# Mean and standard deviation of ImageNet, RGB, as in the host's configs.
_MEAN = [123.675, 116.28, 103.53]
_STD = [58.395, 57.12, 57.375]


def check_model_names(names: Sequence[str]) -> None:
    """Check that each name is one of ours or of timm, and there once.

    Args:
        names (Sequence[str]): ``t2`` or ``mobilemamba_t2`` and so on, or
            names for ``timm.create_model``.

    Raises:
        ValueError: A name is unknown, or there twice.
    """
    for name in names:
        if name.startswith(_PREFIX):
            resolve_arch(_arch_name(name))
        elif name not in ARCH_SETTINGS:
            check_timm_name(name)
        if names.count(name) > 1:
            raise ValueError(f'The model {name} is named more than once.')


def make_classifier(name: str, num_classes: int, size: int) -> dict:
    """Make the config of a classifier with random weights.

    Args:
        name (str): Name that :func:`check_model_names` accepts.
        num_classes (int): Number of classes.
        size (int): Side of the pictures in pixels.

    Returns:
        dict: Config for MMPretrain's registry.
    """
    preprocessor = dict(
        num_classes=num_classes, mean=_MEAN, std=_STD, to_rgb=True
    )
    loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
    if name in ARCH_SETTINGS or name.startswith(_PREFIX):
        arch = _arch_name(name)
        return dict(
            type='ImageClassifier',
            data_preprocessor=preprocessor,
            backbone=dict(
                type='mmmobilemamba.MobileMamba', arch=arch, out_indices=(2,)
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='mmmobilemamba.BNLinearClsHead',
                num_classes=num_classes,
                in_channels=resolve_arch(arch)['channels'][-1],
                loss=loss,
            ),
        )
    model = dict(
        type='TimmClassifier',
        model_name=name,
        num_classes=num_classes,
        data_preprocessor=preprocessor,
        loss=loss,
    )
    # Networks with windows or position tables are built for one size.
    if import_timm().get_pretrained_cfg(name).fixed_input_size:
        model['img_size'] = size
    return model


def make_config(
    name: str,
    split: ImageSplit,
    lists: Path,
    *,
    size: int,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    workers: int,
) -> Config:
    """Make the config of a training, the same for every model but for it.

    AdamW with warm-up and a cosine by iteration, no decay on norms and
    biases, random crops, flips and mild colour jitter, label smoothing.

    Args:
        name (str): Name that :func:`check_model_names` accepts.
        split (ImageSplit): The images.
        lists (Path): Folder of ``train.txt`` and ``val.txt``.
        size (int): Side of the pictures in pixels.
        epochs (int): Epochs, a tenth of which, at least one, warm up.
        batch_size (int): Images per step.
        lr (float): Peak learning rate.
        seed (int): Seed of weights, order and augmentation.
        workers (int): Processes that load images.

    Returns:
        Config: Config for ``tools/train.py``.
    """
    cfg = Config.fromstring(_BASES, '.py')
    cfg.model = make_classifier(name, len(split.classes), size)
    load = dict(type='LoadImageFromFile')
    pack = dict(type='PackInputs')
    train_pipeline = [
        load,
        dict(
            type='RandomResizedCrop',
            scale=size,
            crop_ratio_range=(0.5, 1.0),
            interpolation='bicubic',
        ),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(
            type='ColorJitter',
            brightness=0.2,
            contrast=0.2,
            saturation=0.2,
            backend='cv2',
        ),
        pack,
    ]
    val_pipeline = [
        load,
        dict(
            type='ResizeEdge',
            scale=size,
            edge='short',
            interpolation='bicubic',
        ),
        dict(type='CenterCrop', crop_size=size),
        pack,
    ]
    dataset = dict(
        type='CustomDataset',
        data_root=str(split.root),
        metainfo=dict(classes=split.classes),
    )
    common = dict(batch_size=batch_size, num_workers=workers)
    cfg.train_dataloader = dict(
        **common,
        # BatchNorm needs more than one picture in the last batch too.
        drop_last=len(split.train) >= batch_size,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            **dataset,
            ann_file=str(lists / 'train.txt'),
            pipeline=train_pipeline,
        ),
    )
    cfg.val_dataloader = dict(
        **common,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            **dataset, ann_file=str(lists / 'val.txt'), pipeline=val_pipeline
        ),
    )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=(1,))

    cfg.optim_wrapper.optimizer.lr = lr
    cfg.optim_wrapper.clip_grad = dict(max_norm=5.0)
    warmup = max(epochs // 10, 1)
    cfg.param_scheduler = [
        dict(
            type='LinearLR',
            start_factor=1e-2,
            by_epoch=True,
            begin=0,
            end=warmup,
            convert_to_iter_based=True,
        )
    ]
    if epochs > warmup:
        cfg.param_scheduler.append(
            dict(
                type='CosineAnnealingLR',
                eta_min=lr / 100,
                by_epoch=True,
                begin=warmup,
                end=epochs,
                T_max=epochs - warmup,
                convert_to_iter_based=True,
            )
        )
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
    cfg.auto_scale_lr = dict(base_batch_size=batch_size)
    cfg.default_hooks.logger.interval = 5
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.randomness = dict(seed=seed)
    return cfg


def _arch_name(name: str) -> str:
    return name.removeprefix(_PREFIX)

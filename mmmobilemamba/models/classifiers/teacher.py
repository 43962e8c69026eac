"""A frozen classifier that a student learns from."""

import os
import os.path as osp
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ...checkpoints.checkpoint import load_weights, read_state_dict
from ...checkpoints.forks import find_fork_configs
from ...checkpoints.safe_loading import allow_mmengine_checkpoints
from ..part_configs import as_value_error, check_part

_TIMM = 'TimmClassifier'


class Teacher:
    """Score pictures with a classifier outside of the module tree.

    It is no ``nn.Module``, so that an attribute which holds it adds nothing
    to the parameters, the state dict and the mode of a student. A copy of
    the student shares it: a moving average of the weights holds no second
    one.

    Args:
        model (nn.Module): Classifier of mmpretrain with a data preprocessor;
            it is frozen and put into evaluation mode for good.
        size (Sequence[int], optional): Height and width in pixels that the
            pictures are resized to, by bicubic interpolation. None leaves
            them as they are. Defaults to None.
    """

    def __init__(
        self, model: nn.Module, size: Sequence[int] | None = None
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.size = None if size is None else tuple(size)
        self._device: torch.device | None = None

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Score pictures.

        Args:
            pixels (Tensor): RGB pictures (batch, 3, H, W) of values from 0
                to 255, on the device to compute on.

        Returns:
            Tensor: Scores (batch, classes) before softmax, float32.
        """
        self._follow(pixels)
        if self.size is not None and pixels.shape[2:] != self.size:
            pixels = F.interpolate(
                pixels, self.size, mode='bicubic', align_corners=False
            )
        scores = self.model(
            from_pixels(pixels, self.model.data_preprocessor), mode='tensor'
        )
        return scores.float()

    def _follow(self, pixels: Tensor) -> None:
        """Go to the device and the memory format of the pictures."""
        if self._device == pixels.device:
            return
        self._device = pixels.device
        self.model.to(pixels.device)
        if pixels.is_contiguous(memory_format=torch.channels_last):
            self.model.to(memory_format=torch.channels_last)


def to_pixels(inputs: Tensor, preprocessor: nn.Module) -> Tensor:
    """Undo the normalisation of a data preprocessor.

    Args:
        inputs (Tensor): Normalised pictures (batch, 3, H, W).
        preprocessor (nn.Module): mmpretrain's ClsDataPreprocessor that made
            them.

    Returns:
        Tensor: RGB pictures of values from 0 to 255.
    """
    if getattr(preprocessor, 'mean', None) is not None:
        inputs = inputs * preprocessor.std + preprocessor.mean
    return inputs if preprocessor.to_rgb else inputs.flip(1)


def from_pixels(pixels: Tensor, preprocessor: nn.Module) -> Tensor:
    """Normalise as a data preprocessor does.

    Args:
        pixels (Tensor): RGB pictures (batch, 3, H, W) of values from 0 to
            255.
        preprocessor (nn.Module): mmpretrain's ClsDataPreprocessor.

    Returns:
        Tensor: Normalised pictures, in the preprocessor's channel order.
    """
    if not preprocessor.to_rgb:
        pixels = pixels.flip(1)
    if getattr(preprocessor, 'mean', None) is not None:
        pixels = (pixels - preprocessor.mean) / preprocessor.std
    return pixels


def check_teacher_file(path: str | None, teacher: str) -> None:
    """Check that a teacher's weights lie where the config says.

    Args:
        path (str, optional): Value of ``teacher_ckpt``.
        teacher (str): Name of the teacher, for the message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if path and osp.isfile(osp.expanduser(path)):
        return
    raise FileNotFoundError(
        f'model.teacher_ckpt={path!r} is no file. Distillation needs the '
        f'weights of the teacher, {teacher}: put them there, or name the '
        'file with --cfg-options model.teacher_ckpt=PATH. Nothing is '
        'downloaded for you.'
    )


def build_teacher(
    config: dict | str,
    checkpoint: str | None,
    size: int | Sequence[int] | None = None,
) -> Teacher:
    """Build a teacher and fill it from a local file.

    Args:
        config (dict or str): Model config of mmpretrain, or a config file.
        checkpoint (str): File with its weights.
        size (int or Sequence[int], optional): Side, or height and width, of
            the pictures that it sees, in pixels. None takes the size that a
            timm model names, and leaves the pictures as they are for others.
            Defaults to None.

    Returns:
        Teacher: The teacher, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit, the config does not say how the
            teacher normalises its pictures, or it would download weights.
    """
    model_cfg = read_teacher_config(config)
    name = teacher_name(model_cfg)
    check_teacher_file(checkpoint, name)
    checkpoint = osp.expanduser(checkpoint)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        if _is_timm(model_cfg):
            model = _build_timm(model_cfg, checkpoint)
            size = size or model.model.pretrained_cfg['input_size'][1:]
        else:
            with as_value_error(f'The teacher {name} cannot be built'):
                model = MODELS.build(model_cfg)
            _fill(model, checkpoint, name)
    return Teacher(model, (size, size) if isinstance(size, int) else size)


def read_teacher_config(config: dict | str) -> dict:
    """Read and check the config of a teacher.

    Args:
        config (dict or str): Model config of mmpretrain, or a config file,
            which may be one of a package: ``'mmpretrain::...'``.

    Returns:
        dict: A copy of the model's config, data preprocessor included.

    Raises:
        ValueError: It does not say how the teacher normalises its pictures,
            or would download weights.
    """
    if isinstance(config, str | os.PathLike):
        # One of a package, as in _base_, or a file.
        packaged = '::' in str(config)
        find_fork_configs()
        content = get_config(config) if packaged else Config.fromfile(config)
        if not isinstance(content.get('model'), dict):
            raise ValueError(f'The teacher {config} holds no model.')
        model = content.model.to_dict()
        if content.get('data_preprocessor'):
            model.setdefault(
                'data_preprocessor', content.data_preprocessor.to_dict()
            )
    else:
        model = deepcopy(dict(config))
    check_part('teacher', model)
    # Those of the training that made the teacher.
    for key in ('train_cfg', 'init_cfg'):
        model.pop(key, None)
    for node in _dicts(model):
        if node.get('pretrained') or ':' in str(node.get('model_name', '')):
            raise ValueError(
                'The teacher would download weights: '
                f'{node}. Leave out pretrained=, name the model without a '
                'source and give the file as teacher_ckpt.'
            )
    if not _is_timm(model):
        preprocessor = model.get('data_preprocessor') or {}
        if not isinstance(preprocessor, dict) or not (
            {'mean', 'std'} <= preprocessor.keys()
        ):
            raise ValueError(
                f'The teacher {teacher_name(model)} needs '
                'data_preprocessor=dict(mean=..., std=..., to_rgb=...), which '
                'says how it normalises its pictures; '
                f'got {preprocessor or None}.'
            )
        preprocessor.pop('batch_augments', None)
    return model


def teacher_name(config: dict) -> str:
    """Name a teacher in a message.

    Args:
        config (dict): Its model config.

    Returns:
        str: timm's name of the model, or the type of the backbone.
    """
    if _is_timm(config):
        return f"timm's {config.get('model_name')}"
    backbone = config.get('backbone')
    if not isinstance(backbone, dict):
        backbone = {}
    return str(backbone.get('type', config.get('type')))


def _is_timm(config: dict) -> bool:
    return str(config.get('type')).rpartition('.')[2] == _TIMM


def _build_timm(config: dict, checkpoint: str) -> nn.Module:
    """Build mmpretrain's TimmClassifier from a local file."""
    overlay = dict(file=checkpoint)
    if config.get('num_classes'):
        # timm drops the classifier of a file whose classes are others.
        overlay['num_classes'] = config['num_classes']
    # mmpretrain hands all that it does not know on to timm.
    config.update(pretrained=True, pretrained_cfg_overlay=overlay)
    allow_mmengine_checkpoints()
    with as_value_error(
        'The teacher cannot be built: '
        f'{checkpoint} does not fit {teacher_name(config)}'
    ):
        model = MODELS.build(config)
    if 'data_preprocessor' not in config:
        own = model.model.pretrained_cfg
        model.data_preprocessor = MODELS.build(
            dict(
                type='ClsDataPreprocessor',
                mean=[255 * value for value in own['mean']],
                std=[255 * value for value in own['std']],
                to_rgb=True,
            )
        )
    return model


def _fill(model: nn.Module, checkpoint: str, name: str) -> None:
    """Load a checkpoint of mmpretrain, all of it."""
    source = f'{checkpoint}, the weights of the teacher {name},'
    load_weights(model, read_state_dict(checkpoint), source)


def _dicts(node: object) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, list | tuple):
        return
    for child in node:
        yield from _dicts(child)

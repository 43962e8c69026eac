"""A frozen classifier that a student learns from."""

import os.path as osp
from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ...checkpoints.checkpoint import load_weights, read_state_dict
from ..backbones.timm import translate_file

DEFAULT_TEACHER = dict(type='TimmClassifier', model_name='tresnet_v2_l')


class Teacher:
    """Score images with a classifier outside of the module tree.

    It is no ``nn.Module``, so that an attribute which holds it adds nothing
    to the parameters, the state dict and the mode of a student. A copy of
    the student shares it: a moving average of the weights holds no second
    one.

    Args:
        model (nn.Module): Classifier of mmpretrain with a data preprocessor;
            it is frozen and put into evaluation mode for good.
        size (Sequence[int], optional): Height and width in pixels that the
            images are resized to, by bicubic interpolation. None leaves them
            as they are. Defaults to None.
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
        """Score images.

        Args:
            pixels (Tensor): BGR images (batch, 3, H, W) of values from 0 to
                255, as mmcv loads them, on the device to compute on.

        Returns:
            Tensor: Scores (batch, classes) before softmax, float32.
        """
        if self._device != pixels.device:
            self._device = pixels.device
            self.model.to(pixels.device)
        if self.size is not None and pixels.shape[2:] != self.size:
            pixels = F.interpolate(
                pixels, self.size, mode='bicubic', align_corners=False
            )
        data = self.model.data_preprocessor(dict(inputs=pixels))
        return self.model(data['inputs'], mode='tensor').float()


def to_pixels(inputs: Tensor, preprocessor: nn.Module) -> Tensor:
    """Undo the normalisation of mmpretrain's ClsDataPreprocessor.

    ``inputs`` are normalised images (batch, 3, H, W); given are BGR images of
    values from 0 to 255.
    """
    if getattr(preprocessor, 'mean', None) is not None:
        inputs = inputs * preprocessor.std + preprocessor.mean
    return inputs.flip(1) if preprocessor.to_rgb else inputs


def build_teacher(
    config: dict | str,
    checkpoint: str | None,
    size: int | Sequence[int] | None = None,
) -> Teacher:
    """Build a teacher and fill it from a local file.

    Args:
        config (dict or str): Model config of mmpretrain, or a config file,
            which may be one of a package: ``'mmpretrain::...'``.
        checkpoint (str): File with its weights.
        size (int or Sequence[int], optional): Side, or height and width, of
            the images that it sees, in pixels. None takes the size that a
            timm model names, and leaves the images as they are for others.
            Defaults to None.

    Returns:
        Teacher: The teacher, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit, or the config does not say how the
            teacher normalises its images.
    """
    if not osp.isfile(osp.expanduser(checkpoint or '')):
        raise FileNotFoundError(
            f'model.teacher_ckpt={checkpoint!r} is no file. Distillation '
            f'needs the weights of the teacher, {_name(config)}: put them '
            'there, or name the file with --cfg-options '
            'model.teacher_ckpt=PATH. Nothing is downloaded for you.'
        )
    cfg = _read_config(config)
    of_timm = str(cfg['type']).rpartition('.')[2] == 'TimmClassifier'
    normalised = {'mean', 'std'} <= (cfg.get('data_preprocessor') or {}).keys()
    if not of_timm and not normalised:
        raise ValueError(
            f'The teacher {_name(config)} needs data_preprocessor=dict('
            'mean=..., std=..., to_rgb=...), which says how it normalises '
            'its images.'
        )
    tensors = read_state_dict(osp.expanduser(checkpoint))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
        network = model.model if of_timm else model
        if of_timm:
            own = network.pretrained_cfg
            size = size or own['input_size'][1:]
            tensors = translate_file(network, tensors)
        if not normalised:
            model.data_preprocessor = MODELS.build(
                dict(
                    type='ClsDataPreprocessor',
                    mean=[255 * value for value in own['mean']],
                    std=[255 * value for value in own['std']],
                    to_rgb=True,
                )
            )
    load_weights(network, tensors, f'Teacher {_name(config)}: {checkpoint}')
    return Teacher(model, (size, size) if isinstance(size, int) else size)


def _read_config(config: dict | str) -> dict:
    """Return a model config, without what only its own training needs."""
    if isinstance(config, dict):
        model = deepcopy(config)
    else:
        packaged = '::' in config
        content = get_config(config) if packaged else Config.fromfile(config)
        model = content.model
        if content.get('data_preprocessor'):
            model.setdefault('data_preprocessor', content.data_preprocessor)
    for key in ('train_cfg', 'init_cfg', 'pretrained'):
        model.pop(key, None)
    # The file has all weights; nothing is downloaded.
    (model.get('backbone') or {}).pop('pretrained', None)
    (model.get('data_preprocessor') or {}).pop('batch_augments', None)
    return model


def _name(config: dict | str) -> str:
    if not isinstance(config, dict):
        return str(config)
    inner = config.get('backbone') or config
    return str(inner.get('model_name', inner.get('type')))

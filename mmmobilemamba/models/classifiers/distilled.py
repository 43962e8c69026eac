"""Image classification with a teacher."""

import os.path as osp
from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS as HOST_MODELS
from mmengine.registry import DefaultScope
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ...checkpoints.checkpoint import load_weights, read_state_dict
from ...registry import MODELS
from ..backbones.timm import translate_file


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    """Train a classifier by its labels and by a teacher's predictions.

    The teacher sees the images that the student sees, after Mixup and CutMix,
    of its own size and normalisation. It is frozen, in evaluation mode, and
    part of no checkpoint and of no moving average. It is built when training
    starts; testing and inference do not need it.

    Args:
        backbone (dict): Config of the student's backbone.
        teacher (dict or str): Model config of mmpretrain, with its
            ``data_preprocessor``, or a config file such as
            ``'mmpretrain::resnet/resnet50_8xb32_in1k.py'``; a timm model is
            ``dict(type='TimmClassifier', model_name=NAME)``, which knows its
            normalisation.
        teacher_ckpt (str, optional): File with the teacher's weights.
            Training does not start without. Defaults to None.
        teacher_size (int or Sequence[int], optional): Side, or height and
            width, in pixels of the teacher's images. Defaults to None, the
            size that a timm model names, and the student's for others.
        distill_mode (str): ``'soft'``, the divergence of the student's
            distribution from the teacher's, or ``'hard'``, cross entropy
            with the teacher's first choice. Defaults to ``'soft'``.
        distill_weight (float): Weight of that loss. Defaults to 5.0.
        temperature (float): Divides the scores before softmax in ``'soft'``
            mode; the loss is multiplied by its square. Defaults to 1.0.
        **kwargs: ``neck``, ``head``, ``train_cfg``, ``data_preprocessor`` and
            the like of mmpretrain's ImageClassifier. Where the head has a
            distillation head, that one learns from the teacher, and the head
            itself from the labels.

    Source: MobileMamba (arXiv:2411.15941), section 4.1; the form of the loss
    is that of arXiv:2012.12877.
    """

    def __init__(
        self,
        backbone: dict,
        teacher: dict | str,
        teacher_ckpt: str | None = None,
        teacher_size: int | Sequence[int] | None = None,
        distill_mode: str = 'soft',
        distill_weight: float = 5.0,
        temperature: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if distill_mode not in ('soft', 'hard'):
            raise ValueError(
                f'distill_mode must be soft or hard, got {distill_mode!r}.'
            )
        self.teacher_cfg = teacher
        self.teacher_ckpt = teacher_ckpt
        self.teacher_size = teacher_size
        self.distill_mode = distill_mode
        self.distill_weight = distill_weight
        self.temperature = temperature
        self._teacher: Teacher | None = None

    @property
    def teacher(self) -> 'Teacher':
        """The teacher, built when it is first asked for."""
        if self._teacher is None:
            self._teacher = build_teacher(
                self.teacher_cfg, self.teacher_ckpt, self.teacher_size
            )
        return self._teacher

    def init_weights(self) -> None:
        """Initialise the student; a teacher that is missing ends it here."""
        _ = self.teacher
        super().init_weights()

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict:
        """Calculate the head's losses of normalised images (batch, 3, H, W),
        and ``loss_distill`` by the teacher."""
        feats = self.extract_feat(inputs)
        if hasattr(self.head, 'forward_heads'):
            scores = self.head.forward_heads(feats)
        else:
            scores = (self.head(feats),)
        losses = self.head._get_loss(scores[0], data_samples)
        pixels, own = inputs, self.data_preprocessor
        if getattr(own, 'mean', None) is not None:
            pixels = pixels * own.std + own.mean
        wanted = self.teacher(pixels.flip(1) if own.to_rgb else pixels)
        losses['loss_distill'] = self.distill_weight * self.distill_loss(
            scores[-1].float(), wanted
        )
        return losses

    def distill_loss(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """Compare the student's scores with the teacher's, both (batch,
        classes) before softmax; return the mean, without the weight."""
        if scores.shape != wanted.shape:
            raise ValueError(
                f'The teacher scores {wanted.shape[1]} classes and the '
                f'student {scores.shape[1]}; they must be the same ones.'
            )
        if self.distill_mode == 'hard':
            return F.cross_entropy(scores, wanted.argmax(dim=1))
        divergence = F.kl_div(
            F.log_softmax(scores / self.temperature, dim=1),
            F.log_softmax(wanted / self.temperature, dim=1),
            reduction='batchmean',
            log_target=True,
        )
        return divergence * self.temperature**2


class Teacher:
    """Score images with a frozen classifier of mmpretrain.

    It is no ``nn.Module``, so that it adds nothing to a student's parameters,
    state dict and mode, and a copy of the student, as a moving average of its
    weights, shares it.
    """

    def __init__(
        self, model: nn.Module, size: Sequence[int] | None = None
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.size = size and tuple(size)

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Score BGR images (batch, 3, H, W) of values from 0 to 255."""
        self.model.to(pixels.device)
        if self.size and pixels.shape[2:] != self.size:
            pixels = F.interpolate(pixels, self.size, mode='bicubic')
        data = self.model.data_preprocessor(dict(inputs=pixels))
        return self.model(data['inputs'], mode='tensor').float()


def build_teacher(
    config: dict | str,
    checkpoint: str | None,
    size: int | Sequence[int] | None = None,
) -> Teacher:
    """Build a teacher, on the CPU, and fill it from a local file.

    Arguments are those of :class:`DistilledClassifier`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit, or the config does not say how the
            teacher normalises its images.
    """
    if not osp.isfile(osp.expanduser(checkpoint or '')):
        raise FileNotFoundError(
            f'model.teacher_ckpt={checkpoint!r} is no file. Name the weights '
            f'of {config} with --cfg-options model.teacher_ckpt=PATH; nothing '
            'is downloaded for you.'
        )
    if isinstance(config, str):
        read = get_config if '::' in config else Config.fromfile
        content = read(config)
        cfg = content.model
        cfg.setdefault('data_preprocessor', content.get('data_preprocessor'))
    else:
        cfg = deepcopy(config)
    for part in (cfg, cfg.get('backbone') or {}):
        part.pop('pretrained', None)  # by which timm downloads
    of_timm = str(cfg['type']).endswith('TimmClassifier')
    normalised = {'mean', 'std'} <= (cfg.get('data_preprocessor') or {}).keys()
    if not of_timm and not normalised:
        raise ValueError(
            f'The teacher {config} needs data_preprocessor=dict(mean=..., '
            'std=..., to_rgb=...), which says how it normalises its images.'
        )
    tensors = read_state_dict(checkpoint)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = model = HOST_MODELS.build(cfg)
    if of_timm:
        network = model.model
        own = network.pretrained_cfg
        size = size or own['input_size'][1:]
        tensors = translate_file(network, tensors)
    if not normalised:
        mean, std = ([255 * x for x in own[key]] for key in ('mean', 'std'))
        model.data_preprocessor = ClsDataPreprocessor(mean, std, to_rgb=True)
    load_weights(network, tensors, f'Teacher {checkpoint}')
    return Teacher(model, (size, size) if isinstance(size, int) else size)

"""Image classification with a teacher."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor

from ...registry import MODELS
from .teacher import (
    DEFAULT_TEACHER,
    Teacher,
    build_teacher,
    to_pixels,
)


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    """Train a classifier by its labels and by a teacher's predictions.

    The teacher sees the images that the student sees, after Mixup and CutMix:
    they are freed of the student's normalisation, resized and given the
    teacher's own. It is frozen, always in evaluation mode, and part of no
    checkpoint and of no moving average. It is built when training starts;
    testing and inference do not need it.

    Args:
        backbone (dict): Config of the student's backbone.
        teacher (dict or str): Model config of mmpretrain, with its
            ``data_preprocessor``, or a config file such as
            ``'mmpretrain::resnet/resnet50_8xb32_in1k.py'``; a timm model is
            ``dict(type='TimmClassifier', model_name=NAME)``, which knows its
            normalisation. Defaults to None, which is timm's
            ``'tresnet_v2_l'``.
        teacher_ckpt (str, optional): File with the teacher's weights.
            Training does not start without. Defaults to None.
        teacher_size (int or Sequence[int], optional): Side, or height and
            width, in pixels that the teacher's images are resized to. None
            takes the size that a timm model names, and the student's for
            others. Defaults to None.
        distill_mode (str): ``'soft'``, the divergence of the student's
            distribution from the teacher's, or ``'hard'``, cross entropy
            with the teacher's first choice. Defaults to ``'soft'``.
        distill_weight (float): Weight of that loss beside the one of the
            labels. Defaults to 5.0.
        temperature (float): Divides the scores before softmax in ``'soft'``
            mode; the loss is multiplied by its square. Defaults to 1.0.
        **kwargs: ``neck``, ``head``, ``train_cfg``, ``data_preprocessor`` and
            the like of mmpretrain's ImageClassifier. Where the head has a
            distillation head, that one learns from the teacher, and the head
            itself from the labels.

    Raises:
        ValueError: An argument is outside its range, or the head cannot be
            asked for its scores.

    Source: MobileMamba (arXiv:2411.15941), section 4.1; the form of the loss
    is that of arXiv:2012.12877.
    """

    def __init__(
        self,
        backbone: dict,
        teacher: dict | str | None = None,
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
        if not (distill_weight > 0 and temperature > 0):
            raise ValueError(
                'distill_weight and temperature must be positive, got '
                f'{distill_weight!r} and {temperature!r}.'
            )
        if not hasattr(self.head, '_get_loss'):
            raise ValueError(
                'head must be a classification head of mmpretrain, one that '
                f'scores by forward(); got {type(self.head).__name__}.'
            )
        self.teacher_cfg = DEFAULT_TEACHER if teacher is None else teacher
        self.teacher_ckpt = teacher_ckpt
        self.teacher_size = teacher_size
        self.distill_mode = distill_mode
        self.distill_weight = distill_weight
        self.temperature = temperature
        self._teacher: Teacher | None = None

    @property
    def teacher(self) -> Teacher:
        """The teacher, built when it is first asked for."""
        if self._teacher is None:
            self._teacher = build_teacher(
                self.teacher_cfg, self.teacher_ckpt, self.teacher_size
            )
        return self._teacher

    def init_weights(self) -> None:
        """Initialise the student, and have the teacher ready.

        The Runner calls it before the first iteration, so that a teacher
        that is missing stops a training that has not begun.
        """
        _ = self.teacher
        super().init_weights()

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict:
        """Calculate the loss by the labels and the one by the teacher.

        ``inputs`` are normalised images (batch, 3, H, W), ``data_samples``
        have labels or soft targets. Given are the losses of the head, and
        ``loss_distill`` by the teacher.
        """
        feats = self.extract_feat(inputs)
        if hasattr(self.head, 'forward_heads'):
            scores = self.head.forward_heads(feats)
        else:
            scores = (self.head(feats),)
        losses = self.head._get_loss(scores[0], data_samples)
        wanted = self.teacher(to_pixels(inputs, self.data_preprocessor))
        losses['loss_distill'] = self.distill_weight * self.distill_loss(
            scores[-1].float(), wanted
        )
        return losses

    def distill_loss(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """Compare the student's scores with the teacher's.

        Args:
            scores (Tensor): Student's scores (batch, classes) before softmax.
            wanted (Tensor): Teacher's scores (batch, classes).

        Returns:
            Tensor: Mean over the batch, without the weight, ().
        """
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

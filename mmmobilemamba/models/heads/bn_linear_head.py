"""Classification head of the published networks."""

import torch.nn as nn
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from mmmobilemamba.models.arguments import (
    MAX_CHANNELS,
    check_bool,
    check_int,
    check_ints,
    is_int,
)
from mmmobilemamba.models.part_configs import as_value_error, check_init_cfg
from mmmobilemamba.registry import MODELS

MAX_CLASSES = 1_000_000


@MODELS.register_module()
class BNLinearClsHead(ClsHead):
    """Classify pooled features by BatchNorm1d and one linear layer.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels of the pooled features.
        with_distill_head (bool): Whether a second head of the same form, for
            a teacher's targets, is there. The two are averaged at inference.
            The published files have one head. Defaults to False.
        init_cfg (dict or list[dict], optional): Initialisation. Defaults to
            None, which is a truncated normal of standard deviation 0.02 and
            zero bias for the linear layer.
        **kwargs: ``loss``, ``topk`` and ``cal_acc`` of mmpretrain's ClsHead.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``num_classes``, ``in_channels`` or ``topk`` is out of
            range.

    Source: MobileMamba (arXiv:2411.15941), section 4.1.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        with_distill_head: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(
                type='TruncNormal', layer='Linear', std=0.02, bias=0.0
            )
        check_init_cfg(init_cfg, loads_strictly=False)
        check_int('num_classes', num_classes, 1, MAX_CLASSES)
        check_int('in_channels', in_channels, 1, MAX_CHANNELS)
        check_bool('with_distill_head', with_distill_head)
        check_bool('cal_acc', kwargs.get('cal_acc', False))
        if 'topk' in kwargs:
            # ClsHead says that it takes an int, and then counts over it.
            topk = kwargs['topk']
            topk = (topk,) if is_int(topk) else topk
            # Without accuracies, a base's top 5 may stand over 3 classes.
            most = num_classes if kwargs.get('cal_acc') else None
            kwargs['topk'] = check_ints('topk', topk, 1, most)
        with as_value_error(f'BNLinearClsHead cannot be built with {kwargs}'):
            super().__init__(init_cfg=init_cfg, **kwargs)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.with_distill_head = with_distill_head
        self.bn = nn.BatchNorm1d(in_channels)
        self.fc = nn.Linear(in_channels, num_classes)
        if with_distill_head:
            self.distill_bn = nn.BatchNorm1d(in_channels)
            self.distill_fc = nn.Linear(in_channels, num_classes)

    def forward_heads(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Score with each head by itself.

        Args:
            feats (tuple[Tensor]): Pooled features, of which the last,
                (batch, in_channels), is read.

        Returns:
            tuple[Tensor]: Scores (batch, num_classes) before softmax of the
            head and, where there is one, of the distillation head.
        """
        x = self.pre_logits(feats)
        scores = (self.fc(self.bn(x)),)
        if self.with_distill_head:
            scores += (self.distill_fc(self.distill_bn(x)),)
        return scores

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Score with the mean of the heads.

        Args:
            feats (tuple[Tensor]): Pooled features, of which the last,
                (batch, in_channels), is read.

        Returns:
            Tensor: Scores before softmax, (batch, num_classes).
        """
        scores = self.forward_heads(feats)
        return sum(scores) / len(scores)

    def loss(
        self,
        feats: tuple[Tensor, ...],
        data_samples: list[DataSample],
        **kwargs,
    ) -> dict:
        """Calculate the loss of the scores against the labels.

        Without a teacher the distillation head learns from the labels too, as
        a second term, so that every parameter has a gradient.

        Args:
            feats (tuple[Tensor]): Pooled features, of which the last,
                (batch, in_channels), is read.
            data_samples (list[DataSample]): Labels or soft targets.
            **kwargs: Passed on to the loss module.

        Returns:
            dict[str, Tensor]: ``loss``, ``loss_distill`` where there is a
            distillation head, and accuracies where ``cal_acc`` is set.
        """
        scores = self.forward_heads(feats)
        losses = self._get_loss(scores[0], data_samples, **kwargs)
        if self.with_distill_head:
            second = self._get_loss(scores[1], data_samples, **kwargs)
            losses['loss_distill'] = second['loss']
        return losses

"""Classification head of the published networks."""

from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ...registry import MODELS


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
        super().__init__(
            init_cfg=init_cfg
            or dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
            **kwargs,
        )
        self.num_classes, self.in_channels = num_classes, in_channels
        self.with_distill_head = with_distill_head
        self.bn = nn.BatchNorm1d(in_channels)
        self.fc = nn.Linear(in_channels, num_classes)
        if with_distill_head:
            self.distill_bn = nn.BatchNorm1d(in_channels)
            self.distill_fc = nn.Linear(in_channels, num_classes)

    def forward_heads(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Score the last of ``feats``, (batch, in_channels), with each head,
        that for the labels first: (batch, num_classes), before softmax."""
        x = self.pre_logits(feats)
        scores = (self.fc(self.bn(x)),)
        if self.with_distill_head:
            scores += (self.distill_fc(self.distill_bn(x)),)
        return scores

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Score with the mean of the heads, (batch, num_classes)."""
        scores = self.forward_heads(feats)
        return sum(scores) / len(scores)

    def loss(
        self,
        feats: tuple[Tensor, ...],
        data_samples: list[DataSample],
        **kwargs,
    ) -> dict:
        """Calculate the losses by the labels; without a teacher, that of the
        distillation head is ``loss_distill``."""
        scores = self.forward_heads(feats)
        losses = self._get_loss(scores[0], data_samples, **kwargs)
        if self.with_distill_head:
            second = self._get_loss(scores[1], data_samples, **kwargs)
            losses['loss_distill'] = second['loss']
        return losses

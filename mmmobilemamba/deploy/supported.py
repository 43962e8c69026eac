"""Which heads of MMDetection are exported as they predict."""

from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import nn


def check_dense(head: nn.Module) -> None:
    """Refuse a dense head that predicts by other rules.

    Args:
        head (nn.Module): Dense head, or the head of proposals.

    Raises:
        ValueError: It is none that can be exported.
    """
    name = type(head).__name__
    if not isinstance(head, AnchorHead) or hasattr(head, 'atss_centerness'):
        raise ValueError(
            f'{name} is no anchor head; RetinaHead, SSDHead, RPNHead and '
            'their like can be exported.'
        )
    _check_coder(head)
    _check_nms(name, head.test_cfg)


def check_roi_head(head: nn.Module) -> None:
    """Refuse a second stage that predicts by other rules.

    Args:
        head (nn.Module): RoI head.

    Raises:
        ValueError: It is none that can be exported.
    """
    name = type(head).__name__
    if type(head) is not StandardRoIHead:
        raise ValueError(
            f'{name} cannot be exported; of second stages StandardRoIHead can.'
        )
    extractors = [head.bbox_roi_extractor]
    if head.with_mask:
        extractors.append(head.mask_roi_extractor)
    for extractor in extractors:
        layers = extractor.roi_layers
        if type(extractor) is not SingleRoIExtractor or not all(
            layer.aligned and layer.pool_mode == 'avg' for layer in layers
        ):
            raise ValueError(
                f'{name}: SingleRoIExtractor with aligned average RoIAlign '
                f'can be exported, got {type(extractor).__name__}.'
            )
    _check_coder(head.bbox_head)
    _check_nms(name, head.test_cfg)


def _check_coder(head: nn.Module) -> None:
    coder = head.bbox_coder
    if type(coder) is not DeltaXYWHBBoxCoder:
        raise ValueError(
            f'{type(head).__name__}: boxes coded by DeltaXYWHBBoxCoder can '
            f'be exported, got {type(coder).__name__}.'
        )


def _check_nms(name: str, cfg) -> None:
    nms = cfg.nms
    if nms.get('type', 'nms') != 'nms' or nms.get('class_agnostic'):
        raise ValueError(
            f'{name}: suppression by plain nms within each class can be '
            f'exported, got test_cfg.nms={dict(nms)}.'
        )

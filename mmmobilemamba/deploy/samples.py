"""Turning the outputs of an exported network into the hosts' samples."""

import numpy as np
import torch
from torch import Tensor


def paste_masks(
    masks: np.ndarray,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float,
) -> Tensor:
    """Put masks within boxes onto a picture, as MMDetection does.

    Args:
        masks (np.ndarray): Probabilities within the box, (n, H, W).
        boxes (Tensor): Boxes (n, 4) in pixels of the picture.
        size (tuple[int]): Height and width of the picture.
        threshold (float): Probability from which a pixel belongs; a negative
            one leaves the probabilities.

    Returns:
        Tensor: Masks (n, height, width), bool, or probabilities in steps of
        1 / 255, uint8.
    """
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    if not len(boxes):
        return torch.zeros((0, *size), dtype=torch.bool)
    # Its own loss has a short name, which means another class in the scope
    # of MMPretrain; none is computed here.
    head = FCNMaskHead(
        num_convs=0,
        num_classes=1,
        class_agnostic=True,
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_mask=True),
    )
    (result,) = head.predict_by_feat(
        [masks[:, None]],
        [InstanceData(bboxes=boxes.clone(), labels=torch.zeros(len(boxes)))],
        [dict(ori_shape=size, scale_factor=(1.0, 1.0))],
        ConfigDict(mask_thr_binary=threshold),
        rescale=False,
        activate_map=True,
    )
    return result.masks

"""Outputs of exported networks as the hosts' samples."""

import numpy as np
import torch
from mmengine.registry import DefaultScope

from mmmobilemamba.deploy.samples import paste_masks


def test_masks_are_pasted_beside_a_classifier():
    """A process that read a classifier's config before is in its scope."""
    half = np.zeros((1, 4, 4), np.float32)
    half[:, :, 2:] = 1
    boxes = torch.tensor([[2.0, 1.0, 10.0, 5.0]])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        masks = paste_masks(half, boxes, (8, 12), threshold=0.5)
    wanted = torch.zeros(1, 8, 12, dtype=torch.bool)
    wanted[:, 1:5, 6:10] = True
    assert torch.equal(masks, wanted)

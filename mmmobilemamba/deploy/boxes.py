"""Choosing boxes of one image: top-k and suppression in standard operators."""

import torch
from torch import Tensor
from torchvision.ops import nms


def top_k(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best scores of (n,) and their places, or all if fewer."""
    there = torch.as_tensor(scores.shape[0])
    return torch.topk(scores, torch.minimum(there, torch.tensor(count)))


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_thr: float,
    score_thr: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress overlapping boxes within each label; keep the best.

    Takes boxes (n, 4) as left, top, right, bottom in pixels, scores (n,) and
    int64 labels (n,), and returns those that are left, ``count`` at most, the
    best first. Without any it is one row of 0, 0 and -1, as runtimes stumble
    over empty tensors.
    """
    at = (scores > score_thr).nonzero().flatten()
    boxes, scores, labels = boxes[at], scores[at], labels[at]
    nothing = boxes.new_zeros(1, 4)
    # As mmcv: boxes of different labels are moved so that none overlap.
    span = torch.cat((boxes, nothing)).max() + 1
    moved = boxes + labels[:, None].to(boxes.dtype) * span
    kept = nms(moved, scores, iou_thr)[:count]
    rows = torch.as_tensor(kept.shape[0]).clamp(min=1)
    return (
        torch.cat((boxes[kept], nothing))[:rows],
        # Some runtimes round a sigmoid to more than 1.
        torch.cat((scores[kept].clamp(0, 1), nothing[0, :1]))[:rows],
        torch.cat((labels[kept], labels.new_full((1,), -1)))[:rows],
    )

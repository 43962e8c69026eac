"""Choosing boxes: top-k, suppression and pooling as standard operators.

Boxes are (batch, count, 4) as left, top, right, bottom in pixels, scores
(batch, count). A score of -1 marks what is no box, so that every picture of a
batch has as many rows.
"""

import torch
from mmcv.ops import roi_align
from torch import Tensor
from torch.autograd import Function
from torchvision.ops import nms

from .scan import call


class _TopK(Function):
    """The best of the last dimension, or all where there are fewer."""

    @staticmethod
    def forward(ctx, scores: Tensor, count: Tensor):
        count = min(int(count), scores.shape[-1])
        return torch.topk(scores, count)

    @staticmethod
    def symbolic(g, scores, count):
        there = g.op('Shape', scores, start_i=-1)
        return g.op('TopK', scores, g.op('Min', there, count), outputs=2)


class _NMS(Function):
    """Rows (picture, 0, box) of the boxes that are left, best first."""

    @staticmethod
    def forward(ctx, boxes, scores, iou_thr, score_thr, count):
        rows = []
        for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            there = (score > score_thr).nonzero().flatten()
            kept = there[nms(box[there], score[there], iou_thr)][:count]
            picture = torch.full_like(kept, i)
            rows.append(
                torch.stack((picture, torch.zeros_like(kept), kept), 1)
            )
        return torch.cat(rows)

    @staticmethod
    def symbolic(g, boxes, scores, iou_thr, score_thr, count):
        def constant(value, kind):
            return g.op('Constant', value_t=torch.tensor([value], dtype=kind))

        one = constant(1, torch.int64)
        return g.op(
            'NonMaxSuppression',
            boxes,
            g.op('Unsqueeze', scores, one),
            constant(count, torch.int64),
            constant(iou_thr, torch.float32),
            constant(score_thr, torch.float32),
        )


class _RoIAlign(Function):
    """Pooled (rois, channels, *size) of rois (picture, box)."""

    @staticmethod
    def forward(ctx, feats, rois, size, scale, sampling_ratio):
        return roi_align(feats, rois, size, scale, sampling_ratio, 'avg', True)

    @staticmethod
    def symbolic(g, feats, rois, size, scale, sampling_ratio):
        def columns(first, last):
            bounds = (
                g.op('Constant', value_t=torch.tensor([value]))
                for value in (first, last, 1)
            )
            return g.op('Slice', rois, *bounds)

        minus_one = g.op('Constant', value_t=torch.tensor([-1]))
        picture = g.op('Reshape', columns(0, 1), minus_one)
        return g.op(
            'RoiAlign',
            feats,
            columns(1, 5),
            g.op('Cast', picture, to_i=7),
            coordinate_transformation_mode_s='half_pixel',
            output_height_i=size[0],
            output_width_i=size[1],
            spatial_scale_f=scale,
            sampling_ratio_i=sampling_ratio,
        )


def top_k(scores: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return the best scores and their places, best first.

    Args:
        scores (Tensor): (batch, n).
        count (int or Tensor): How many; all where there are fewer.

    Returns:
        tuple[Tensor]: Scores and int64 places, (batch, min(count, n)).
    """
    if not isinstance(count, Tensor):
        count = torch.tensor([count])
    return call(_TopK, scores, count)


def take(rows: Tensor, places: Tensor) -> Tensor:
    """Take rows (batch, n, 4) at places (batch, k)."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[2]))


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_thr: float,
    score_thr: float,
    count: int,
    fixed_count: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress overlapping boxes within each label; keep the best.

    Args:
        boxes (Tensor): Boxes (batch, n, 4).
        scores (Tensor): Scores (batch, n).
        labels (Tensor): Labels (batch, n), int64.
        iou_thr (float): Overlap above which the lesser box goes.
        score_thr (float): A box needs a score above it.
        count (int): Boxes to keep of a picture.
        fixed_count (bool): Fill up to ``count`` rows. Otherwise there are as
            many as the fullest picture of the batch has, but one at least.

    Returns:
        tuple[Tensor]: Boxes (batch, k, 4), scores and labels (batch, k), the
        best first; rows that are no box are 0, 0 and -1.
    """
    # As mmcv: boxes of different labels are moved so that none overlap, by
    # what the boxes that count need, which rounds alike.
    counts = (scores > score_thr)[..., None].to(boxes.dtype)
    span = (boxes * counts).amax(dim=(1, 2), keepdim=True) + 1
    moved = boxes + labels[..., None].to(boxes.dtype) * span
    rows = call(_NMS, moved, scores, iou_thr, score_thr, count)
    left = torch.full_like(scores, -1.0)
    at = (rows[:, 0], rows[:, 2])
    left = left.index_put(at, scores[at])
    keep: int | Tensor = count
    if not fixed_count:
        most = (left > score_thr).sum(1).max().clamp(1, count)
        keep = most.reshape(1)
    scores, places = top_k(left, keep)
    # Some runtimes round a sigmoid to more than 1.
    scores = scores.clamp(0, 1)
    there = scores > score_thr
    boxes = take(boxes, places) * there[..., None].to(boxes.dtype)
    labels = labels.gather(1, places)
    return (
        boxes,
        scores,
        torch.where(there, labels, torch.full_like(labels, -1)),
    )


def pool(
    feats: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Pool the pixels of boxes by RoIAlign.

    Args:
        feats (Tensor): Map (batch, channels, H, W).
        rois (Tensor): Picture and box of each, (n, 5), in pixels of the
            picture.
        size (tuple[int]): Height and width of the result.
        scale (float): Side of the map over that of the picture.
        sampling_ratio (int): Samples along a side of each cell; 0 takes one
            per pixel of the map.

    Returns:
        Tensor: (n, channels, *size).
    """
    return call(_RoIAlign, feats, rois, size, scale, sampling_ratio)

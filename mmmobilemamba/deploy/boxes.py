"""Choosing boxes: top-k and suppression as standard operators.

Boxes are (batch, count, 4) as left, top, right, bottom in pixels, scores
(batch, count). A score of -1 marks what is no box, so that every image of a
batch has as many rows.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torchvision.ops import nms


class _NMS(Function):
    """Rows (image, 0, box) of the boxes that are left, best first.

    torchvision's symbol knows one image and no least score.
    """

    @staticmethod
    def forward(ctx, boxes, scores, iou_thr, score_thr, count):
        rows = []
        for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            there = (score > score_thr).nonzero().flatten()
            kept = there[nms(box[there], score[there], iou_thr)][:count]
            # Plainly written: the tracer looks in here, too, and stumbles.
            image, zero = torch.full_like(kept, i), torch.zeros_like(kept)
            rows.append(torch.stack((image, zero, kept), 1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g, boxes, scores, iou_thr, score_thr, count):
        def constant(value, dtype):
            return g.op('Constant', value_t=torch.tensor([value], dtype=dtype))

        return g.op(
            'NonMaxSuppression',
            boxes,
            g.op('Unsqueeze', scores, constant(1, torch.int64)),
            constant(count, torch.int64),
            constant(iou_thr, torch.float32),
            constant(score_thr, torch.float32),
        )


def top_k(scores: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return the best scores and their places, best first.

    Args:
        scores (Tensor): (batch, n).
        count (int or Tensor): How many; all where there are fewer.

    Returns:
        tuple[Tensor]: Scores and int64 places, (batch, min(count, n)).
    """
    there = torch.as_tensor(scores.shape[-1])
    count = torch.minimum(there, torch.as_tensor(count))
    return torch.topk(scores, count)


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
        count (int): Boxes to keep of an image.
        fixed_count (bool): Fill up to ``count`` rows. Otherwise there are as
            many as the fullest image of the batch has, but one at least.

    Returns:
        tuple[Tensor]: Boxes (batch, k, 4), scores and labels (batch, k), the
        best first; rows that are no box are 0, 0 and -1.
    """
    # As mmcv: boxes of different labels are moved so that none overlap, by
    # what the boxes that count need, which rounds alike.
    counts = (scores > score_thr)[..., None].to(boxes.dtype)
    span = (boxes * counts).amax(dim=(1, 2), keepdim=True) + 1
    moved = boxes + labels[..., None].to(boxes.dtype) * span
    rows = _NMS.apply(moved, scores, iou_thr, score_thr, count)
    left = torch.full_like(scores, -1.0)
    at = (rows[:, 0], rows[:, 2])
    left = left.index_put(at, scores[at])
    keep: int | Tensor = count
    if not fixed_count:
        keep = (left > score_thr).sum(1).max().clamp(1, count)
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

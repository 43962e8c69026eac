"""Judging the boxes of an exported detector, where scores may tie.

Boxes are chosen by rank and by overlap. Where two scores are equal up to
rounding, or an overlap is at the threshold, either choice is right, and the
rest of the selection follows from it. What is proven is therefore: every box
is one that the model predicts too, no two of them should have suppressed each
other, and a box that one side alone keeps lost a tie on the other.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

# Suppression moves the boxes of each label apart by some 1e5 pixels, where
# float32 rounds to hundredths of a pixel.
IOU_SLACK = 0.01
# Candidates that one box is compared with at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture.

    Args:
        places (Tensor): Corners (n, 4) in pixels.
        scores (Tensor): (n,).
        labels (Tensor): (n,), int64.
    """

    places: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: Tensor | slice | list[int]) -> 'Boxes':
        """Return some of the boxes."""
        return Boxes(self.places[rows], self.scores[rows], self.labels[rows])


@dataclass(frozen=True)
class Choice:
    """What a model chose its boxes from.

    Args:
        candidates (Boxes): All boxes that it may keep, those included that
            rounding may lift above a limit.
        iou_thr (float): Overlap above which the lesser box goes.
        limits (tuple[float]): Scores at which boxes are cut off: the
            threshold, and the least of a level that is looked at.
        count (int): Boxes that are kept at most.
    """

    candidates: Boxes
    iou_thr: float
    limits: tuple[float, ...]
    count: int


class Match(NamedTuple):
    """Boxes that agree.

    Args:
        rows (list[int]): Places of boxes that were found.
        columns (list[int]): Places of the boxes that were wanted, in the
            same order.
        error (float): Largest difference, of places as a share of the
            picture's side.
    """

    rows: list[int]
    columns: list[int]
    error: float


def match_boxes(
    found: Boxes, wanted: Boxes, side: int, tolerance: float
) -> Match:
    """Pair as many boxes as agree in label, place and score.

    Args:
        found (Boxes): Boxes to judge.
        wanted (Boxes): Boxes of the model.
        side (int): Longer side of the picture in pixels.
        tolerance (float): Largest difference, of places as a share of
            ``side``.

    Returns:
        Match: The pairs; each box is in one at most.
    """
    if not len(found) or not len(wanted):
        return Match([], [], 0.0)
    distance = _distance(found, wanted, side)
    # What is too far costs more than all that is near enough.
    cost = torch.where(distance <= tolerance, distance, 1e3)
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cost.numpy()))
    errors = distance[rows, columns]
    near = errors <= tolerance
    error = float(errors[near].max()) if near.any() else 0.0
    return Match(rows[near].tolist(), columns[near].tolist(), error)


def judge_ties(
    found: Boxes,
    wanted: Boxes,
    match: Match,
    choice: Choice,
    side: int,
    tolerance: float,
    groups: Tensor | None = None,
) -> list[str]:
    """Say which boxes differ by more than the outcome of a tie.

    Args:
        found (Boxes): Boxes to judge.
        wanted (Boxes): Boxes that the model keeps.
        match (Match): Those that agree.
        choice (Choice): What the model chose from.
        side (int): Longer side of the picture in pixels.
        tolerance (float): Largest difference, of places as a share of
            ``side``; scores nearer than it tie.
        groups (Tensor, optional): Boxes found suppress each other within
            these, (n,). Defaults to None, their labels.

    Returns:
        list[str]: Problems, none where all is explained.
    """
    problems = []
    groups = found.labels if groups is None else groups
    overlap = box_iou(found.places, found.places)
    both = (groups[:, None] == groups).triu(diagonal=1)
    twice = int((both & (overlap > choice.iou_thr + IOU_SLACK)).sum())
    if twice:
        problems.append(f'{twice} pairs of boxes should suppress each other')
    only_found = found.take(_others(match.rows, len(found)))
    only_wanted = wanted.take(_others(match.columns, len(wanted)))
    strange = sum(
        not _is_candidate(only_found.take([i]), choice, side, tolerance)
        for i in range(len(only_found))
    )
    if strange:
        problems.append(f'{strange} boxes are none that the model predicts')
    for alone, kept, text in (
        (only_found, wanted, 'boxes are too many'),
        (only_wanted, found, f'of {len(wanted)} boxes have no counterpart'),
    ):
        lost = int((~_lost_a_tie(alone, kept, choice, tolerance)).sum())
        if lost:
            problems.append(f'{lost} {text}')
    return problems


def _distance(found: Boxes, wanted: Boxes, side: int) -> Tensor:
    """Return (found, wanted): the larger of both errors, or infinity."""
    places = (found.places[:, None] - wanted.places).abs().amax(2) / side
    scores = (found.scores[:, None] - wanted.scores).abs()
    distance = torch.maximum(places, scores)
    distance[found.labels[:, None] != wanted.labels] = torch.inf
    return distance


def _others(rows: list[int], count: int) -> Tensor:
    left = torch.ones(count, dtype=torch.bool)
    left[rows] = False
    return left


def _is_candidate(
    box: Boxes, choice: Choice, side: int, tolerance: float
) -> bool:
    """Tell whether the model predicts a box too, kept or not."""
    all_ = choice.candidates
    blocks = (
        all_.take(slice(i, i + _BLOCK)) for i in range(0, len(all_), _BLOCK)
    )
    return any(
        bool((_distance(box, block, side) <= tolerance).any())
        for block in blocks
    )


def _lost_a_tie(
    alone: Boxes, kept: Boxes, choice: Choice, tolerance: float
) -> Tensor:
    """Tell of boxes (n,) whether the other side had reason to drop them.

    The reason is a box there which overlaps and scores as much, a score at one
    of the limits, or that better ones filled the list.
    """
    overlaps = box_iou(alone.places, kept.places)
    overlaps = overlaps >= choice.iou_thr - IOU_SLACK
    as_good = kept.scores >= alone.scores[:, None] - tolerance
    same = kept.labels == alone.labels[:, None]
    limits = alone.scores.new_tensor(choice.limits)
    at_limit = (alone.scores[:, None] - limits).abs() <= tolerance
    lost = (overlaps & as_good & same).any(1) | at_limit.any(1)
    if len(kept) >= choice.count:
        lost |= alone.scores <= kept.scores.min() + tolerance
    return lost

"""How many anchors of a detector learn each box of a data set."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.structures import InstanceData
from torch import nn


@dataclass
class BoxMatches:
    """What became of the boxes of a class.

    Args:
        sides (list[float]): Root of the area of each box in pixels, as the
            network sees it.
        anchors (list[int]): How many anchors learn each box.
    """

    sides: list[float] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)

    @property
    def side(self) -> float:
        """Median of the sides."""
        return statistics.median(self.sides)

    @property
    def mean(self) -> float:
        """Anchors per box."""
        return statistics.fmean(self.anchors)

    @property
    def poor(self) -> float:
        """Share of the boxes that one anchor learns, or none."""
        return sum(count < 2 for count in self.anchors) / len(self.anchors)


def anchor_head(model: nn.Module) -> nn.Module:
    """Find the head of a detector that matches anchors by their IoU.

    Args:
        model (nn.Module): Detector.

    Returns:
        nn.Module: Its head; that of the proposals where it has two stages.

    Raises:
        ValueError: It has none.
    """
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        kind = type(getattr(head, 'assigner', None)).__name__
        if kind == 'MaxIoUAssigner' and hasattr(head, 'prior_generator'):
            return head
    raise ValueError(
        'The model must have a head with anchors and a MaxIoUAssigner, as '
        f'RetinaNet, SSD and Faster R-CNN have; got {type(model).__name__}.'
    )


def count_matches(
    head: nn.Module, samples: Iterable, divisor: int = 1
) -> dict[int, BoxMatches]:
    """Match the boxes of training samples to anchors as the loss does.

    Args:
        head (nn.Module): What :func:`anchor_head` found.
        samples (Iterable[DetDataSample]): Samples with boxes.
        divisor (int): What pictures are padded to a multiple of. Defaults
            to 1.

    Returns:
        dict[int, BoxMatches]: What was found, by label.
    """
    found: dict[int, BoxMatches] = {}
    priors: dict[tuple[int, int], torch.Tensor] = {}
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        boxes = getattr(boxes, 'tensor', boxes)
        labels = sample.gt_instances.labels
        if not len(boxes):
            continue
        size = tuple(_padded(side, divisor) for side in sample.img_shape[:2])
        if size not in priors:
            priors[size] = _make_priors(head, size)
        matched = head.assigner.assign(
            InstanceData(priors=priors[size]),
            InstanceData(bboxes=boxes, labels=labels),
        ).gt_inds
        # 0 is background, -1 neither; boxes are counted from 1.
        counts = torch.bincount(
            matched[matched > 0] - 1, minlength=len(boxes)
        ).tolist()
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        sides = areas.sqrt().tolist()
        for label, side, count in zip(
            labels.tolist(), sides, counts, strict=True
        ):
            matches = found.setdefault(label, BoxMatches())
            matches.sides.append(side)
            matches.anchors.append(count)
    return found


def list_matches(
    found: Mapping[int, BoxMatches], classes: Sequence[str]
) -> Iterator[str]:
    """Lay matches out as lines of text, a class each.

    Args:
        found (Mapping[int, BoxMatches]): Matches by label.
        classes (Sequence[str]): Names of the labels.

    Yields:
        str: A line.
    """
    width = max([5, *map(len, classes)])
    yield (
        f'{"class":{width}}  {"boxes":>7}  {"side px":>7}  '
        f'{"anchors/box":>11}  {"one or none":>11}'
    )
    for label, name in enumerate(classes):
        matches = found.get(label)
        if matches is None:
            yield f'{name:{width}}  {0:7}'
            continue
        yield (
            f'{name:{width}}  {len(matches.anchors):7}  {matches.side:7.1f}  '
            f'{matches.mean:11.1f}  {matches.poor:11.0%}'
        )


def _padded(side: int, divisor: int) -> int:
    return math.ceil(side / divisor) * divisor


def _make_priors(head: nn.Module, size: tuple[int, int]) -> torch.Tensor:
    """Return the anchors of all levels for a picture of a size."""
    maps = [
        (math.ceil(size[0] / high), math.ceil(size[1] / wide))
        for wide, high in head.prior_generator.strides
    ]
    levels = head.prior_generator.grid_priors(maps, device='cpu')
    return torch.cat([getattr(level, 'tensor', level) for level in levels])

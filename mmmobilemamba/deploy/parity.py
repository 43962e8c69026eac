"""Comparing an exported network with the model that it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .session import Session

TOLERANCE = 1e-4
# A mask's pixel flips where its probability is at the threshold.
MASK_IOU = 0.99


@dataclass
class Comparison:
    """What a comparison of one batch of pictures found.

    Args:
        picture (str): What was compared, for the report.
        size (tuple[int]): Height and width in pixels.
        error (float): Largest relative error of a tensor, or of matched
            boxes and scores.
        boxes (int, optional): Pairs of boxes. Defaults to None.
        problems (list[str]): What does not agree. Defaults to none.
    """

    picture: str
    size: tuple[int, int]
    error: float
    boxes: int | None = None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        boxes = '' if self.boxes is None else f', {self.boxes} boxes matched'
        return (
            f'{self.picture} {self.size[0]}x{self.size[1]}: relative error '
            f'{self.error:.1e}{boxes}'
            + ''.join(f'; {p}' for p in self.problems)
        )


@torch.no_grad()
def eager_outputs(
    model: nn.Module, metadata: dict, image: Tensor
) -> dict[str, Tensor] | list:
    """Compute what an exported network must reproduce.

    Args:
        model (nn.Module): Model of a host library as it is evaluated.
        metadata (dict): The exported network's.
        image (Tensor): Pictures (batch, channels, H, W) before the
            preprocessing where that is inside, else normalised.

    Returns:
        dict[str, Tensor] or list: Tensors by output, or for a detector what
        MMDetection's ``predict`` gives for each picture.
    """
    if metadata['preprocess']:
        from .networks import Preprocess

        image = Preprocess(metadata['normalize'])(image)
    kind = metadata['kind']
    if kind == 'backbone':
        maps = model.backbone(image)
        return {f'map{i}': value for i, value in enumerate(maps)}
    if kind == 'classifier':
        logits = model.head(model.extract_feat(image))
        return dict(scores=torch.softmax(logits, 1))
    size = tuple(image.shape[2:])
    if kind == 'segmentor':
        logits = model.encode_decode(image, [dict(img_shape=size)])
        return dict(logits=logits)
    return _predict_boxes(model, metadata, image)


def _predict_boxes(model: nn.Module, metadata: dict, image: Tensor) -> list:
    from mmdet.structures import DetDataSample

    height, width = image.shape[2:]
    divisor = metadata['normalize']['pad_divisor']
    pads = (0, -width % divisor, 0, -height % divisor)
    padded = nn.functional.pad(image, pads)
    shape = tuple(padded.shape[2:])
    meta = dict(
        img_shape=(height, width),
        ori_shape=(height, width),
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
    )
    samples = [DetDataSample(metainfo=dict(meta)) for _ in image]
    samples = model.predict(padded, samples, rescale=False)
    return [sample.pred_instances for sample in samples]


def compare(
    name: str,
    model: nn.Module,
    session: Session,
    image: Tensor,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compare an exported network with its model on a batch of pictures.

    Args:
        name (str): What is compared, for the report.
        model (nn.Module): Model of a host library as it is evaluated.
        session (Session): The exported network.
        image (Tensor): Pictures (batch, channels, H, W) as the exported
            network takes them.
        tolerance (float): Largest relative error. Defaults to 1e-4.

    Returns:
        Comparison: What was found.
    """
    wanted = eager_outputs(model, session.metadata, image)
    got = session(image.numpy())
    size = tuple(image.shape[2:])
    if session.metadata['kind'] == 'detector':
        return _compare_boxes(name, size, model, wanted, got, tolerance)
    result = Comparison(name, size, 0.0)
    for key, value in wanted.items():
        if key not in got:  # the best class was asked for
            result.problems += _compare_labels(value, got['labels'], tolerance)
            continue
        error = relative_error(got[key], value.numpy())
        result.error = max(result.error, error)
        if not error <= tolerance:
            result.problems.append(f'{key} differs')
    return result


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference over the largest value.

    Args:
        got (np.ndarray): Values to judge.
        wanted (np.ndarray): Values of the same shape.

    Returns:
        float: The error, or infinity for another shape or no number.
    """
    if got.shape != wanted.shape:
        return float('inf')
    if not wanted.size:
        return 0.0
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12)
    return float(error) if np.isfinite(error) else float('inf')


def _compare_labels(
    logits: Tensor, labels: np.ndarray, tolerance: float
) -> list[str]:
    """Accept another class only where both score alike."""
    if logits.shape[1] == 1:
        return []
    places = torch.from_numpy(labels.astype(np.int64))[:, None]
    if places.shape[2:] != logits.shape[2:]:
        return [f'labels have the shape {tuple(labels.shape)}']
    lost = logits.amax(1, keepdim=True) - logits.gather(1, places)
    wrong = int((lost > tolerance * logits.abs().max()).sum())
    return [f'{wrong} pixels have another class'] if wrong else []


def _compare_boxes(
    name: str,
    size: tuple[int, int],
    model: nn.Module,
    wanted: Sequence,
    got: dict[str, np.ndarray],
    tolerance: float,
) -> Comparison:
    """Pair every box with one of the same label, place and score."""
    from .samples import paste_masks

    result = Comparison(name, size, 0.0, boxes=0)
    for i, truth in enumerate(wanted):
        there = got['labels'][i] >= 0
        boxes = torch.from_numpy(got['boxes'][i][there])
        scores = torch.from_numpy(got['scores'][i][there])
        labels = torch.from_numpy(got['labels'][i][there])
        if len(boxes) != len(truth):
            result.problems.append(
                f'{len(boxes)} boxes instead of {len(truth)}'
            )
        if not len(boxes) or not len(truth):
            continue
        places = (boxes[:, None] - truth.bboxes).abs().amax(2) / max(size)
        distance = torch.maximum(
            places, (scores[:, None] - truth.scores).abs()
        )
        distance[labels[:, None] != truth.labels] = torch.inf
        pairs = match_one_to_one(distance)
        errors = [float(distance[a, b]) for a, b in pairs]
        good = [
            p for p, e in zip(pairs, errors, strict=True) if e <= tolerance
        ]
        result.boxes += len(good)
        result.error = max(
            [result.error, *(e for e in errors if np.isfinite(e))]
        )
        if len(good) < len(truth):
            result.problems.append(
                f'{len(truth) - len(good)} of {len(truth)} boxes have no '
                'counterpart'
            )
        if 'masks' in got and good:
            masks = paste_masks(
                got['masks'][i][there],
                boxes,
                size,
                model.roi_head.test_cfg.mask_thr_binary,
            )
            mine = masks[[a for a, _ in good]].flatten(1).bool()
            theirs = truth.masks[[b for _, b in good]].flatten(1).bool()
            both = (mine & theirs).sum(1).clamp(min=1e-9)
            either = (mine | theirs).sum(1)
            overlap = torch.where(either > 0, both / either, 1.0)
            bad = int((overlap < MASK_IOU).sum())
            if bad:
                result.problems.append(f'{bad} masks differ')
    return result


def match_one_to_one(distance: Tensor) -> list[tuple[int, int]]:
    """Pair rows with columns, the nearest first.

    Args:
        distance (Tensor): Distances (rows, columns).

    Returns:
        list[tuple[int, int]]: A row and a column each, used once.
    """
    pairs, distance = [], distance.clone()
    for _ in range(min(distance.shape)):
        place = int(distance.argmin())
        row, column = divmod(place, distance.shape[1])
        if not torch.isfinite(distance[row, column]):
            break
        pairs.append((row, column))
        distance[row], distance[:, column] = torch.inf, torch.inf
    return pairs

"""Comparing an exported network with the model that it came from."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .networks import Preprocess
from .session import Session

TOLERANCE = 1e-4


@dataclass
class Comparison:
    """What a comparison of one batch of pictures found.

    Args:
        picture (str): What was compared, for the report.
        size (tuple[int]): Height and width in pixels.
        error (float): Largest relative error of a tensor, or of matched
            boxes and scores.
        boxes (int, optional): Pairs of boxes. Defaults to None.
        masks (int, optional): Pairs of masks. Defaults to None.
        ties (int): Boxes, and proposals of a second stage, that are right by
            another outcome of a tie. Defaults to 0.
        problems (list[str]): What does not agree. Defaults to none.
    """

    picture: str
    size: tuple[int, int]
    error: float
    boxes: int | None = None
    masks: int | None = None
    ties: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f'{self.picture} {self.size[0]}x{self.size[1]}: relative error '
            f'{self.error:.1e}'
        )
        if self.boxes is not None:
            masks = '' if self.masks is None else f' and {self.masks} masks'
            text += f', {self.boxes} boxes{masks} matched'
        if self.ties:
            text += f', {self.ties} boxes by the outcome of ties'
        return '; '.join([text, *self.problems])


@torch.no_grad()
def eager_outputs(
    model: nn.Module, metadata: dict, image: Tensor
) -> dict[str, Tensor]:
    """Compute the tensors that an exported network must reproduce.

    Args:
        model (nn.Module): Model of a host library as it is evaluated.
        metadata (dict): The exported network's.
        image (Tensor): Normalised pictures (batch, channels, H, W).

    Returns:
        dict[str, Tensor]: Tensors by output.
    """
    kind = metadata['kind']
    if kind == 'backbone':
        maps = model.backbone(image)
        return {f'map{i}': value for i, value in enumerate(maps)}
    if kind == 'classifier':
        logits = model(image, mode='tensor')
        return dict(scores=torch.softmax(logits, 1))
    size = tuple(image.shape[2:])
    return dict(logits=model.encode_decode(image, [dict(img_shape=size)]))


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
    metadata = session.metadata
    pixels = image
    if metadata['preprocess']:
        pixels = Preprocess(metadata['normalize'])(image)
    if metadata['kind'] == 'detector':
        # Imports MMDetection, which the others do without.
        from .detector_parity import compare_detector

        return compare_detector(name, model, session, image, pixels, tolerance)
    wanted = eager_outputs(model, metadata, pixels)
    got = session(image.numpy())
    result = Comparison(name, tuple(image.shape[2:]), 0.0)
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

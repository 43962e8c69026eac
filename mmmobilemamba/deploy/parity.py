"""Comparing an exported network with the model that it came from."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class Comparison:
    """What a comparison of one batch of images found.

    Args:
        image (str): What was compared, for the report.
        size (tuple[int]): Height and width in pixels.
        error (float): Largest relative error of a tensor. Defaults to 0.
        boxes (int, optional): Boxes that were compared. Defaults to None.
        problems (list[str]): What does not agree. Defaults to none.
    """

    image: str
    size: tuple[int, int]
    error: float = 0.0
    boxes: int | None = None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f'{self.image} {self.size[0]}x{self.size[1]}: relative error '
            f'{self.error:.1e}'
        )
        if self.boxes is not None:
            text += f', {self.boxes} boxes'
        return '; '.join([text, *self.problems])

    def add(
        self, name: str, got: np.ndarray, wanted: Tensor, tolerance: float
    ) -> None:
        """Compare one tensor by its relative error.

        Args:
            name (str): What it is.
            got (np.ndarray): The exported network's.
            wanted (Tensor): The model's.
            tolerance (float): Largest relative error.
        """
        error = relative_error(got, wanted.numpy())
        self.error = max(self.error, error)
        if not error <= tolerance:
            self.problems.append(f'{name} differs by {error:.1e}')


@torch.no_grad()
def compare(
    name: str,
    model: nn.Module,
    kind: str,
    got: dict[str, np.ndarray],
    image: Tensor,
    tolerance: float,
) -> Comparison:
    """Compare what an exported network gives with its model.

    Args:
        name (str): What is compared, for the report.
        model (nn.Module): Model of a host library as it is evaluated.
        kind (str): Its kind.
        got (dict[str, np.ndarray]): Outputs of the exported network by name,
            of a detector also what is within.
        image (Tensor): Normalised images (batch, channels, H, W).
        tolerance (float): Largest relative error.

    Returns:
        Comparison: What was found.
    """
    size = tuple(image.shape[2:])
    result = Comparison(name, size)
    if kind == 'detector':
        # Imports MMDetection, which the others do without.
        from .detector_parity import compare_detector

        compare_detector(model, got, image, tolerance, result)
    elif kind == 'backbone':
        for i, value in enumerate(model.backbone(image)):
            result.add(f'map{i}', got[f'map{i}'], value, tolerance)
    elif kind == 'classifier':
        scores = torch.softmax(model(image, mode='tensor'), 1)
        result.add('scores', got['scores'], scores, tolerance)
    else:
        logits = model.encode_decode(image, [dict(img_shape=size)])
        if 'logits' in got:
            result.add('logits', got['logits'], logits, tolerance)
        else:
            _compare_labels(logits, got['labels'], tolerance, result)
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
    logits: Tensor, labels: np.ndarray, tolerance: float, result: Comparison
) -> None:
    """Accept another class only where both score alike."""
    if logits.shape[1] == 1:  # a threshold, not the best of several
        logits = torch.cat((torch.zeros_like(logits), logits), 1)
    places = torch.from_numpy(labels.astype(np.int64))[:, None]
    if places.shape[2:] != logits.shape[2:]:
        result.problems.append(f'labels have the shape {labels.shape}')
        return
    lost = logits.amax(1, keepdim=True) - logits.gather(1, places)
    wrong = int((lost > tolerance * logits.abs().max()).sum())
    if wrong:
        result.problems.append(f'{wrong} pixels have another class')

"""Comparing an exported network with the model that it came from."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class Comparison:
    """What a comparison of one batch of images found."""

    image: str
    size: tuple[int, int]
    tolerance: float
    error: float = 0.0
    boxes: int | None = None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = '' if self.boxes is None else f', {self.boxes} boxes'
        text = f'{self.image} {self.size[0]}x{self.size[1]}: relative error '
        return '; '.join([f'{text}{self.error:.1e}{found}', *self.problems])

    def add(self, name: str, got: np.ndarray, wanted: Tensor) -> None:
        """Compare a tensor of the file with the model's."""
        error = relative_error(got, wanted.numpy())
        self.error = max(self.error, error)
        if not error <= self.tolerance:
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
    """Compare the values of an exported network, by name, with its model.

    ``image`` is what goes into the model, (batch, channels, H, W).
    """
    size = tuple(image.shape[2:])
    result = Comparison(name, size, tolerance)
    if kind == 'detector':
        # Imports MMDetection, which the others do without.
        from .detector_parity import compare_detector

        compare_detector(model, got, image, result)
    elif kind == 'backbone':
        for i, value in enumerate(model.backbone(image)):
            result.add(f'map{i}', got[f'map{i}'], value)
    elif kind == 'classifier':
        scores = torch.softmax(model(image, mode='tensor'), 1)
        result.add('scores', got['scores'], scores)
    else:
        logits = model.encode_decode(image, [dict(img_shape=size)])
        result.add('logits', got['logits'], logits)
    return result


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference over the largest value, or infinity."""
    if got.shape != wanted.shape:
        return float('inf')
    if not wanted.size:
        return 0.0
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12)
    return float(error) if np.isfinite(error) else float('inf')

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

    def add(self, name: str, got: np.ndarray, wanted: Tensor, most: float):
        """Compare a tensor of the file with the model's."""
        error = relative_error(got, wanted.numpy())
        self.error = max(self.error, error)
        if not error <= most:
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
        result.add('logits', got['logits'], logits, tolerance)
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

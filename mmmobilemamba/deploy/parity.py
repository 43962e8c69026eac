"""Comparing an exported network with the model that it came from."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


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


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference over the largest value, or infinity."""
    if got.shape != wanted.shape:
        return float('inf')
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12)
    return float(error) if np.isfinite(error) else float('inf')

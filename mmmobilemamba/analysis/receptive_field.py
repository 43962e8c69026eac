"""Effective receptive fields: which pixels a feature really depends on."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

# Shares of the gradient at which areas are told.
SHARES = (0.2, 0.3, 0.5, 0.99)


def receptive_fields(
    features: Callable[[Tensor], Sequence[Tensor]],
    pictures: Iterable[Tensor],
    stages: Sequence[int],
) -> list[tuple[int, np.ndarray]]:
    """Average the gradient of central features over pictures.

    The features at the centre of a map are cut off at zero and summed, and
    the positive part of the gradient is kept, as in the figures of RepLKNet
    and its successors. Of a map with even sides the four central places
    count.

    Args:
        features (Callable): Maps pictures to the feature maps of its stages,
            in evaluation mode.
        pictures (Iterable[Tensor]): Normalised pictures, (batch, 3, H, W)
            each, all of one size.
        stages (Sequence[int]): Which of the maps; negative ones count from
            the end.

    Returns:
        list[tuple[int, np.ndarray]]: Stride in pixels and share of each pixel
        in the gradient, (H, W), per stage.

    Raises:
        ValueError: There is no such stage, or no gradient reaches the
            pictures.

    Source: Understanding the Effective Receptive Field
    (arXiv:1701.04128); Scaling Up Your Kernels to 31x31
    (arXiv:2203.06717), section 5.
    """
    total: list = [0.0] * len(stages)
    strides = [0] * len(stages)
    for x in pictures:
        x = x.detach().requires_grad_()
        maps = features(x)
        for i, stage in enumerate(stages):
            if stage not in range(-len(maps), len(maps)):
                raise ValueError(
                    f'Stage {stage} is none of the {len(maps)} stages, 0 to '
                    f'{len(maps) - 1}.'
                )
            strides[i] = _stride(x.shape[2], maps[stage].shape[2])
            # The graph is needed until its last use.
            (grad,) = torch.autograd.grad(
                _centre(maps[stage]), x, retain_graph=i + 1 < len(stages)
            )
            total[i] = total[i] + grad.relu().sum((0, 1)).double().cpu()
    fields = []
    for stage, stride, field in zip(stages, strides, total, strict=True):
        if not torch.is_tensor(field) or not field.sum() > 0:
            raise ValueError(f'No gradient of stage {stage} reaches a pixel.')
        fields.append((stride, (field / field.sum()).numpy()))
    return fields


def _stride(pixels: int, places: int) -> int:
    """Return the stride of a map, whose side may have been rounded up."""
    if pixels % places == 0:
        return pixels // places
    return 2 ** round(math.log2(pixels / places))


def _centre(features: Tensor) -> Tensor:
    """Sum the positive part of the features at the centre of a map."""
    rows, columns = (
        slice((side - 1) // 2, side // 2 + 1) for side in features.shape[2:]
    )
    return features[:, :, rows, columns].relu().sum()


def square_shares(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of the gradient lies in squares around the centre.

    Args:
        field (np.ndarray): Receptive field, (H, W), with a sum of 1.

    Returns:
        tuple[np.ndarray, np.ndarray]: Sides of centred rectangles over those
        of the picture, rising to 1, and their shares in the gradient.
    """
    height, width = field.shape
    down = np.abs(np.arange(height) + 0.5 - height / 2) / (height / 2)
    across = np.abs(np.arange(width) + 0.5 - width / 2) / (width / 2)
    reach = np.maximum(down[:, None], across[None, :])
    sides = np.unique(reach)
    which = np.searchsorted(sides, reach)
    within = np.bincount(which.ravel(), weights=field.ravel())
    # The outer edge of a pixel, whose centre the distances are of.
    edge = 1 / max(height, width)
    return np.minimum(sides + edge, 1), within.cumsum()


def covered_areas(
    field: np.ndarray, shares: Sequence[float] = SHARES
) -> list[float]:
    """Return the smallest areas that hold shares of the gradient.

    Args:
        field (np.ndarray): Receptive field, (H, W), with a sum of 1.
        shares (Sequence[float]): Shares, each in (0, 1]. Defaults to 20, 30,
            50 and 99 %.

    Returns:
        list[float]: Areas of centred rectangles over that of the picture.
    """
    sides, within = square_shares(field)
    places = [np.searchsorted(within, share) for share in shares]
    return [float(sides[min(i, len(sides) - 1)] ** 2) for i in places]


@torch.no_grad()
def wake_branches(module: nn.Module) -> None:
    """Set norms that start at zero to one.

    Networks begin with branches that add nothing. Their receptive field would
    be that of the few layers between.

    Args:
        module (nn.Module): Network with random weights, changed in place.
    """
    for part in module.modules():
        weight = getattr(part, 'weight', None)
        if (
            weight is not None
            and 'Norm' in type(part).__name__
            and not weight.any()
        ):
            weight.fill_(1)

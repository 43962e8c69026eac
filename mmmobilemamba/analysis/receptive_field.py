"""Effective receptive fields: which pixels a feature really depends on."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .figures import figure_file, markdown_rows

# Shares of the gradient at which areas are told.
SHARES = (0.2, 0.3, 0.5, 0.99)


def receptive_fields(
    features: Callable[[Tensor], Sequence[Tensor]],
    images: Iterable[Tensor],
    stages: Sequence[int],
) -> list[tuple[int, np.ndarray]]:
    """Average the gradient of central features over images.

    The features at the centre of a map, four places where its sides are even,
    are cut off at zero and summed, and the positive part of the gradient is
    kept, as in the figures of RepLKNet and its successors.

    Args:
        features (Callable): Maps images to a tuple of maps.
        images (Iterable[Tensor]): Normalised images of one size, (batch,
            channels, H, W) each.
        stages (Sequence[int]): Which of the maps; may be negative.

    Returns:
        list[tuple[int, np.ndarray]]: Stride in pixels and share of each
        pixel in the gradient, (H, W), per stage.

    Raises:
        ValueError: There is no such stage, or no gradient reaches a pixel.

    Source: arXiv:1701.04128; RepLKNet (arXiv:2203.06717), section 5.
    """
    totals, strides = [0.0] * len(stages), [0] * len(stages)
    for x in images:
        x = x.detach().requires_grad_()
        maps = features(x)
        for i, stage in enumerate(stages):
            if stage not in range(-len(maps), len(maps)):
                raise ValueError(f'Stage {stage} is none of {len(maps)}.')
            shape = maps[stage].shape[2:]
            # A side may have been rounded up.
            strides[i] = 2 ** round(math.log2(x.shape[2] / shape[0]))
            rows, columns = (slice((n - 1) // 2, n // 2 + 1) for n in shape)
            centre = maps[stage][:, :, rows, columns].relu().sum()
            (grad,) = torch.autograd.grad(centre, x, retain_graph=True)
            totals[i] = totals[i] + grad.relu().sum((0, 1)).double().cpu()
    if not all(total.sum() > 0 for total in totals):
        raise ValueError(f'No gradient of stages {stages} reaches a pixel.')
    fields = [(total / total.sum()).numpy() for total in totals]
    return list(zip(strides, fields, strict=True))


def wake_branches(module: nn.Module) -> None:
    """Set norms that start at zero to one, in place: networks begin with
    branches that add nothing, and their field would be that of the rest."""
    for part in module.modules():
        weight = getattr(part, 'weight', None)
        if 'Norm' in type(part).__name__ and weight is not None:
            if not weight.any():
                nn.init.ones_(weight)


def field_table(networks: Mapping[str, list[tuple]]) -> str:
    """Return the areas that hold shares of the gradient, by names of networks
    and their fields, as Markdown."""
    rows = []
    for name, stages in networks.items():
        for stride, field in stages:
            sides, within = _square_shares(field)
            places = np.searchsorted(within, SHARES).clip(max=len(sides) - 1)
            areas = [f'{area:.1%}' for area in sides[places] ** 2]
            rows.append([name, stride, *areas])
    shares = (f'{share:.0%} of gradient' for share in SHARES)
    return markdown_rows(['network', 'stride', *shares], rows)


def draw_fields(
    networks: Mapping[str, list[tuple]], path: str | os.PathLike, title: str
) -> None:
    """Draw fields with as many stages each into a file, a column per network
    and one with how far they reach."""
    count = max(map(len, networks.values()))
    size = (2.5 * (len(networks) + 1) + 0.6, 2.6 * count + 0.7)
    with figure_file(path, size) as figure:
        figure.suptitle(title)
        grid = figure.subplots(count, len(networks) + 1, squeeze=False)
        for j, (name, stages) in enumerate(networks.items()):
            grid[0][j].set_title(name, fontsize='medium', color=f'C{j}')
            for i, (stride, field) in enumerate(stages):
                # Three decades below the strongest pixels.
                top = np.quantile(field, 0.999)
                visible = np.log10(np.maximum(field, 1e-12) / top)
                grid[i][j].imshow(visible, cmap='magma', vmin=-3, vmax=0)
                grid[i][j].set(xticks=[], yticks=[], xlabel=f'stride {stride}')
                grid[i][-1].plot(*_square_shares(field), color=f'C{j}')
        for panel in grid[:, -1]:
            panel.set(xlim=(0, 1), ylim=(0, 1.02), box_aspect=1)
            panel.grid(alpha=0.3)
        grid[0][-1].set_title('share of the gradient', fontsize='medium')
        grid[-1][-1].set_xlabel('in a central square with this side')


def _square_shares(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sides of centred squares and their shares in the gradient."""
    down, across = (
        np.abs(np.arange(side) + 0.5 - side / 2) / (side / 2)
        for side in field.shape
    )
    reach = np.maximum(down[:, None], across[None, :])
    sides, which = np.unique(reach, return_inverse=True)
    within = np.bincount(which.ravel(), weights=field.ravel())
    # The outer edge of a pixel, whose centre the distances are of.
    return np.minimum(sides + 1 / max(field.shape), 1), within.cumsum()

"""The figure and the table of effective receptive fields."""

import os
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, PercentFormatter

from .figures import figure_file
from .receptive_field import SHARES, covered_areas, square_shares


@dataclass
class Row:
    """The fields of a network.

    Attributes:
        name (str): Name of the network.
        weights (str): ``'random weights'``, or the name of a checkpoint.
        fields (list[tuple[int, np.ndarray]]): Stride in pixels and field of
            each stage.
    """

    name: str
    weights: str
    fields: list[tuple[int, np.ndarray]]


def draw_fields(rows: list[Row], path: str | os.PathLike, title: str) -> None:
    """Draw fields, a column per network and one with how far they reach.

    Args:
        rows (list[Row]): Networks with as many stages each.
        path (str or PathLike): File of the figure.
        title (str): Above all panels; weights that all share are added.
    """
    stages = len(rows[0].fields)
    weights = {row.weights for row in rows}
    if len(weights) == 1:
        title += f', {rows[0].weights}'
    size = (2.5 * (len(rows) + 1) + 0.6, 2.6 * stages + 0.7)
    with figure_file(path, size) as figure:
        figure.suptitle(title)
        grid = figure.subplots(stages, len(rows) + 1, squeeze=False)
        for j, row in enumerate(rows):
            name = row.name + (f'\n{row.weights}' if len(weights) > 1 else '')
            grid[0][j].set_title(name, fontsize='medium', color=f'C{j}')
            for i, (stride, field) in enumerate(row.fields):
                grid[i][j].imshow(_visible(field), cmap='magma')
                grid[i][j].set(xticks=[], yticks=[])
                grid[i][j].set_xlabel(f'stride {stride}', labelpad=2)
        for i in range(stages):
            _draw_reach(grid[i][-1], [row.fields[i][1] for row in rows])
        grid[0][-1].set_title('share of the gradient', fontsize='medium')
        grid[-1][-1].set_xlabel('in a central square with this side')


def _draw_reach(ax: Axes, fields: list[np.ndarray]) -> None:
    for field in fields:
        ax.plot(*square_shares(field))
    ax.set(xlim=(0, 1), ylim=(0, 1.02), box_aspect=1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MultipleLocator(0.25))
        axis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(labelsize='small')
    ax.grid(alpha=0.3)


def _visible(field: np.ndarray) -> np.ndarray:
    """Bring a field, which falls off over decades, to 0 to 1."""
    # Three decades below the strongest pixels, some of which stand alone.
    top = np.quantile(field, 0.999)
    return np.clip(1 + np.log10(np.maximum(field, 1e-12) / top) / 3, 0, 1)


def field_table(rows: list[Row]) -> str:
    """Lay out the areas that hold shares of the gradient.

    Args:
        rows (list[Row]): Networks.

    Returns:
        str: A table of Markdown, a line per network and stage.
    """
    lines = [
        '| network | weights | stride | '
        + ' | '.join(f'{share:.0%} of gradient' for share in SHARES)
        + ' |',
        '|---|---|---:|' + '---:|' * len(SHARES),
    ]
    for row in rows:
        for stride, field in row.fields:
            areas = ' | '.join(f'{a:.1%}' for a in covered_areas(field))
            lines.append(
                f'| {row.name} | {row.weights} | {stride} | {areas} |'
            )
    return '\n'.join(lines)

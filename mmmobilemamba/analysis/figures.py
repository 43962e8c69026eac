"""Figures of this package's tools, drawn without a display."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..checkpoints.atomic import atomic_write
from .run_logs import RunLog

FORMATS = ('.jpg', '.jpeg', '.pdf', '.png', '.svg')


def check_figure_path(path: str | os.PathLike) -> str:
    """Check that matplotlib can write a file of this name.

    Args:
        path (str or PathLike): File of a figure.

    Returns:
        str: The path.

    Raises:
        ValueError: The suffix is none of a picture.
    """
    path = os.fspath(path)
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise ValueError(
            f'A figure ends in one of {", ".join(FORMATS)}, got {path}.'
        )
    return path


@contextmanager
def figure_file(
    path: str | os.PathLike, size: tuple[float, float], dpi: int = 120
) -> Iterator[Figure]:
    """Give a figure, which is written to a file at the end.

    Args:
        path (str or PathLike): Picture or PDF file; written whole.
        size (tuple[float, float]): Width and height in inches.
        dpi (int): Pixels per inch. Defaults to 120.

    Yields:
        Figure: A figure to draw on, with constrained layout.
    """
    # Not through pyplot, which keeps figures and asks for a display.
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)
    yield figure
    with atomic_write(check_figure_path(path)) as draft:
        options = {}
        if draft.suffix.lower() in ('.jpg', '.jpeg'):
            options = dict(pil_kwargs=dict(quality=88, optimize=True))
        figure.savefig(draft, dpi=dpi, **options)


def draw_curves(
    runs: list[RunLog],
    keys: list[str],
    path: str | os.PathLike,
    smooth: int = 1,
    title: str | None = None,
) -> None:
    """Draw values of several runs, a panel per value.

    Args:
        runs (list[RunLog]): Runs to compare.
        keys (list[str]): What to draw, as the logs name it.
        path (str or PathLike): File of the figure.
        smooth (int): Records over which training curves are averaged.
            Defaults to 1.
        title (str, optional): Above all panels. Defaults to None.
    """
    columns = min(len(keys), 3)
    rows = math.ceil(len(keys) / columns)
    # Evaluations share an axis only where they count alike.
    mixed = len({run.by_epoch for run in runs if run.val}) > 1
    with figure_file(path, (4.6 * columns, 3.4 * rows)) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for ax, key in zip(axes, keys):
            _draw_panel(ax, key, runs, mixed, smooth)
        for ax in axes[len(keys) :]:
            ax.set_axis_off()
        axes[0].legend(fontsize='small')
        if title:
            figure.suptitle(title)


def _draw_panel(
    ax: Axes, key: str, runs: list[RunLog], mixed: bool, smooth: int
) -> None:
    measured = any(key in run.metrics for run in runs)
    for number, run in enumerate(runs):
        steps, values = run.curve(key, in_iterations=mixed)
        if not measured:
            steps, values = _smoothed(steps, values, smooth)
        style = dict(marker='o', markersize=4) if measured else {}
        # Also where it has no values, so that colours stay.
        ax.plot(steps, values, label=run.name, color=f'C{number}', **style)
    epochs = measured and not mixed and any(run.by_epoch for run in runs)
    ax.set(title=key, xlabel='epoch' if epochs else 'iteration')
    ax.grid(alpha=0.3)
    if epochs:
        ax.xaxis.get_major_locator().set_params(integer=True)


def _smoothed(
    steps: list[int], values: list[float], window: int
) -> tuple[list[int], list[float]]:
    """Average over the last ``window`` values, over fewer at the start."""
    sums = np.cumsum([0.0, *values])
    means = [
        (sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window)
        for i in range(len(values))
    ]
    return steps, means

"""The table and the figure of backbones trained side by side."""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes

from .figures import figure_file
from .run_logs import RunLog


@dataclass
class Compared:
    """What the trainings with one backbone came to.

    Args:
        label (str): Name in the table.
        params (int): Parameters of the whole model.
        macs (int): Multiply-accumulates of the whole model for one picture.
        backbone_params (int): Those of the backbone alone.
        values (dict[int, float]): Metric of the finished trainings by seed.
        runs (list[RunLog]): Logs of these.
        peak_bytes (int): Memory of a training at its peak, the largest of
            the seeds'. Defaults to 0.
        seconds (list[float]): Seconds of each training.
        speeds (dict[str, float]): Images per second, ``'plain'`` and
            ``'fused'``; empty where they were not measured.
    """

    label: str
    params: int
    macs: int
    backbone_params: int
    values: dict[int, float] = field(default_factory=dict)
    runs: list[RunLog] = field(default_factory=list)
    peak_bytes: int = 0
    seconds: list[float] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean of the metric over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        if len(self.values) < 2:
            return None
        return statistics.stdev(self.values.values())

    def as_dict(self) -> dict:
        """Return everything but the logs, for JSON."""
        return dict(
            backbone=self.label,
            mean=self.mean,
            standard_deviation=self.spread,
            by_seed=self.values,
            params=self.params,
            backbone_params=self.backbone_params,
            macs=self.macs,
            images_per_second=self.speeds,
            peak_bytes=self.peak_bytes,
            train_seconds=[round(seconds, 1) for seconds in self.seconds],
        )


def make_table(
    results: Sequence[Compared], metric: str, settings: Mapping
) -> str:
    """Lay results out as a table of Markdown, the settings below.

    Args:
        results (Sequence[Compared]): A row each.
        metric (str): Name of the metric.
        settings (Mapping): What was the same for all.

    Returns:
        str: The table.
    """
    # Fractions get a digit more than percentages.
    digits = 3 if all(abs(r.mean) <= 1 for r in results) else 2
    rows = [
        f'| backbone | {metric} | seeds | params M (backbone) | MACs G '
        '| images/s | fused | peak MiB | s/training |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for result in results:
        value = f'{result.mean:.{digits}f}'
        if result.spread is not None:
            value += f' ± {result.spread:.{digits}f}'
        params = f'{result.params / 1e6:.2f}'
        params += f' ({result.backbone_params / 1e6:.2f})'
        cells = [
            result.label,
            value,
            len(result.values),
            params,
            f'{result.macs / 1e9:.3f}',
            result.speeds.get('plain', '-'),
            result.speeds.get('fused', '-'),
            round(result.peak_bytes / 2**20) or '-',
            round(statistics.fmean(result.seconds)),
        ]
        rows.append(f'| {" | ".join(map(str, cells))} |')
    said = ', '.join(f'{key} {value}' for key, value in settings.items())
    return '\n'.join([*rows, '', said, ''])


def draw_comparison(
    results: Sequence[Compared], metric: str, path: str | os.PathLike
) -> None:
    """Draw the metric against MACs, against speed, and over the trainings.

    Args:
        results (Sequence[Compared]): A colour each.
        metric (str): Name of the metric.
        path (str or PathLike): Picture to write.
    """
    timed = [result for result in results if result.speeds]
    with figure_file(path, (4.2 * (2 + bool(timed)), 3.6)) as figure:
        axes = list(figure.subplots(1, 2 + bool(timed)))
        _draw_curves(axes.pop(), results, metric)
        _draw_points(
            axes[0],
            metric,
            [(r.macs / 1e9, r) for r in results],
            'MACs of the whole model in G',
        )
        if timed:
            _draw_points(
                axes[1],
                metric,
                [(r.speeds.get('fused', r.speeds['plain']), r) for r in timed],
                'images/s, fused',
            )
        axes[0].legend(fontsize='small')


def _draw_points(
    ax: Axes, metric: str, points: list[tuple[float, Compared]], label: str
) -> None:
    for number, (x, result) in enumerate(points):
        ax.errorbar(
            x,
            result.mean,
            yerr=result.spread,
            fmt='o',
            capsize=4,
            color=f'C{number}',
            label=result.label,
        )
    ax.set(xlabel=label, ylabel=f'{metric}, mean and deviation')
    ax.margins(x=0.15, y=0.15)
    ax.grid(alpha=0.3)


def _draw_curves(ax: Axes, results: Sequence[Compared], metric: str) -> None:
    for number, result in enumerate(results):
        by_step: dict[int, list[float]] = {}
        for run in result.runs:
            for step, value in zip(*run.curve(metric), strict=True):
                by_step.setdefault(step, []).append(value)
        steps = sorted(by_step)
        means = [statistics.fmean(by_step[step]) for step in steps]
        color = f'C{number}'
        ax.plot(steps, means, marker='o', markersize=3, color=color)
        ax.fill_between(
            steps,
            [min(by_step[step]) for step in steps],
            [max(by_step[step]) for step in steps],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    by_epoch = any(run.by_epoch for r in results for run in r.runs)
    ax.set(
        xlabel='epoch' if by_epoch else 'iteration',
        ylabel=f'{metric}, mean and range',
    )
    ax.grid(alpha=0.3)

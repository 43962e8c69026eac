"""Logs of trainings, resumed ones included: curves and metrics."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from .figures import figure_file, markdown_rows

_NO_METRICS = ('data_time', 'time', 'step', 'iter', 'epoch', 'memory')
# What a run is first judged by, in each library.
_LEADING = (
    'coco/bbox_mAP',
    'coco/segm_mAP',
    'pascal_voc/mAP',
    'mIoU',
    'accuracy/top1',
    'single-label/f1-score',
)
_LOWER_IS_BETTER = ('loss', 'error', 'mae', 'rmse')


@dataclass
class RunLog:
    """What a training has logged.

    Args:
        name (str): Name in legends and tables.
        train (dict[int, dict]): Records of the training by iteration.
        val (dict[int, dict]): Records of the evaluations by epoch or
            iteration.
        by_epoch (bool): Whether evaluations are counted in epochs.
    """

    name: str
    train: dict[int, dict] = field(default_factory=dict)
    val: dict[int, dict] = field(default_factory=dict)
    by_epoch: bool = True

    @property
    def metrics(self) -> list[str]:
        """Names of what the evaluations measured."""
        names = {key: None for record in self.val.values() for key in record}
        return [name for name in names if name not in _NO_METRICS]

    @property
    def keys(self) -> set[str]:
        """Names of all that was logged."""
        records = (*self.train.values(), *self.val.values())
        return {key for record in records for key in record}

    def curve(
        self, key: str, in_iterations: bool = False
    ) -> tuple[list[int], list[float]]:
        """Return a value over the training.

        Args:
            key (str): Name of a metric, or of what the training logs.
            in_iterations (bool): Count evaluations in iterations whatever
                the log does. Defaults to False.

        Returns:
            tuple[list[int], list[float]]: Iterations or epochs, and values;
            empty where the run has none.
        """
        records = self.val if key in self.metrics else self.train
        steps = [step for step in sorted(records) if key in records[step]]
        values = [float(records[step][key]) for step in steps]
        if in_iterations and records is self.val and self.by_epoch:
            epochs = {i: r.get('epoch', 0) for i, r in self.train.items()}
            steps = [
                max((i for i, e in epochs.items() if e <= step), default=step)
                for step in steps
            ]
        return steps, values

    def cell(self, key: str) -> str:
        """Return the last value of a metric, and the best if another."""
        steps, values = self.curve(key)
        if not values:
            return ''
        lower = any(word in key.lower() for word in _LOWER_IS_BETTER)
        best = (min if lower else max)(values)
        text = f'{values[-1]:.4g}'
        if best == values[-1]:
            return text
        unit = 'epoch' if self.by_epoch else 'iter.'
        return f'{text} (best {best:.4g}, {unit} {steps[values.index(best)]})'


def read_run(path: str | os.PathLike, name: str | None = None) -> RunLog:
    """Read the logs of a work folder.

    A folder of a resumed training has several. They are joined in the order
    of their time stamps; from its first iteration on a later one replaces
    the earlier, whose training behind the checkpoint was lost.

    Args:
        path (str or PathLike): Work folder, one of its time-stamped folders,
            or a ``scalars.json``.
        name (str, optional): Name of the run. Defaults to None, the folder's.

    Returns:
        RunLog: The run as if it had never been stopped.

    Raises:
        FileNotFoundError: The folder holds no log.
        ValueError: A log holds something else than records.
    """
    path = Path(path)
    # Time stamps sort as text.
    files = (
        [path]
        if path.is_file()
        else sorted(
            [*path.glob('vis_data/scalars.json')]
            or path.glob('*/vis_data/scalars.json')
        )
    )
    if not files:
        raise FileNotFoundError(
            f'{path} holds no */vis_data/scalars.json, which a training '
            'writes.'
        )
    run = RunLog(name or path.resolve().name)
    for file in files:
        records = _read_records(file)
        train = {r['iter']: r for r in records if r.get('iter')}
        val = {
            r['step']: r for r in records if 'step' in r and not r.get('iter')
        }
        epochs = [r['epoch'] for r in train.values() if 'epoch' in r]
        if train:
            first = min(train)
            run.train = {i: r for i, r in run.train.items() if i < first}
            run.by_epoch = bool(epochs) and max(val, default=0) <= max(epochs)
            first = min(epochs) if run.by_epoch else first
            run.val = {i: r for i, r in run.val.items() if i < first}
        run.train |= train
        run.val |= val
    return run


def _read_records(file: Path) -> list[dict]:
    records = []
    lines = file.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(dict(json.loads(line)))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            if number == len(lines):  # the process died while writing
                break
            raise ValueError(f'{file}:{number} is no record.') from error
    return records


def default_keys(runs: list[RunLog]) -> list[str]:
    """Return the loss and the metrics that the runs' libraries are judged
    by, or all metrics where none of these is known."""
    found = list(dict.fromkeys(key for run in runs for key in run.metrics))
    loss = any('loss' in record for r in runs for record in r.train.values())
    leading = [key for key in _LEADING if key in found]
    return ['loss'] * loss + (leading or found)


def metric_table(runs: list[RunLog]) -> str:
    """Lay the last and the best values of all metrics side by side."""
    keys = dict.fromkeys(key for run in runs for key in run.metrics)
    return markdown_rows(
        ['metric', *(run.name for run in runs)],
        [[key, *(run.cell(key) for run in runs)] for key in keys],
    )


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
    with figure_file(path, (4.6 * columns, 3.4 * rows)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, key in zip(panels, keys):
            draw_curve(panel, runs, key, smooth)
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        panels[0].legend(fontsize='small')
        figure.suptitle(title)


def draw_curve(
    panel: Axes, runs: list[RunLog], key: str, smooth: int = 1
) -> None:
    """Draw a value of several runs over their trainings.

    Args:
        panel (Axes): Where to draw.
        runs (list[RunLog]): Runs to compare; a colour each.
        key (str): What to draw.
        smooth (int): Records over which a training curve is averaged.
            Defaults to 1.
    """
    measured = any(key in run.metrics for run in runs)
    # Evaluations share an axis only where they count alike.
    mixed = len({run.by_epoch for run in runs if run.val}) > 1
    for number, run in enumerate(runs):
        steps, values = run.curve(key, in_iterations=mixed)
        style = dict(marker='o', markersize=4)
        if not measured:
            # Over the last few values, over fewer at the start.
            values = [
                np.mean(values[max(0, i + 1 - smooth) : i + 1])
                for i in range(len(values))
            ]
            style = {}
        # Also where it has no values, so that colours stay.
        panel.plot(steps, values, label=run.name, color=f'C{number}', **style)
    epochs = measured and not mixed and any(run.by_epoch for run in runs)
    panel.set(title=key, xlabel='epoch' if epochs else 'iteration')
    panel.grid(alpha=0.3)

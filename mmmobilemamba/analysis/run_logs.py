"""Logs of trainings, resumed ones included: curves and metrics."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .figures import figure_file, markdown_rows

# What a network is judged by, by the names that the host libraries' metrics
# report, the first one before the others; and what makes points of it.
LEADING_METRICS = {
    'coco/segm_mAP': 100,
    'coco/bbox_mAP': 100,
    'pascal_voc/mAP': 100,
    'mIoU': 1,
    'accuracy/top1': 1,
    'single-label/f1-score': 1,
}
_NO_METRICS = ('data_time', 'time', 'step', 'iter', 'epoch', 'memory')
_LOWER_IS_BETTER = ('loss', 'error', 'mae', 'rmse')


@dataclass
class RunLog:
    """What a training has logged; ``name`` is for legends and tables."""

    name: str
    train: dict[int, dict] = field(default_factory=dict)  # by iteration
    val: dict[int, dict] = field(default_factory=dict)  # by epoch or iteration
    by_epoch: bool = True  # evaluations are counted so

    @property
    def metrics(self) -> list[str]:
        """Names of what the evaluations measured."""
        names = {
            key: None
            for record in self.val.values()
            for key, value in record.items()
            if isinstance(value, float | int)  # a metric may report words
        }
        return [name for name in names if name not in _NO_METRICS]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Return steps, in iterations or epochs, and values of what was
        logged or measured."""
        records = self.val if key in self.metrics else self.train
        steps = [step for step in sorted(records) if key in records[step]]
        return steps, [float(records[step][key]) for step in steps]


def read_run(path: str | os.PathLike, name: str | None = None) -> RunLog:
    """Read the logs of a work folder as if it had never been stopped: from
    its first iteration on, that of a resumed training replaces the others."""
    # Time stamps sort as text.
    files = sorted(Path(path).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'{path} holds no */vis_data/scalars.json.')
    run = RunLog(name or Path(path).resolve().name)
    for file in files:
        lines = file.read_text(encoding='utf-8').splitlines(keepends=True)
        try:
            # The process may have died within the last one.
            records = [json.loads(x) for x in lines if x.endswith('\n')]
        except ValueError as error:
            raise ValueError(f'{file} is damaged: {error}') from error
        train, val, last = {}, {}, 0
        for record in records:
            if record.get('iter'):
                last = record['iter']
                train[last] = record
            else:
                # mmengine notes all evaluations of a loop by iterations at
                # step 0, unless log_metric_by_epoch=False.
                val[record['step'] or last] = record
        if train:
            epochs = [r['epoch'] for r in train.values() if 'epoch' in r]
            run.by_epoch = bool(epochs) and max(val, default=0) <= max(epochs)
            first = min(epochs) if run.by_epoch else min(train)
            run.val = {i: r for i, r in run.val.items() if i < first}
            first = min(train)
            run.train = {i: r for i, r in run.train.items() if i < first}
        run.train |= train
        run.val |= val
    return run


def leading_metrics(runs: Sequence[RunLog]) -> list[str]:
    """Return the metrics that the runs' libraries are judged by, or all that
    there are where none of these is known."""
    found = list(dict.fromkeys(key for run in runs for key in run.metrics))
    return [key for key in LEADING_METRICS if key in found] or found


def metric_table(runs: Sequence[RunLog]) -> str:
    """Return the last and the best values of all metrics, as Markdown."""
    keys = dict.fromkeys(key for run in runs for key in run.metrics)
    return markdown_rows(
        ['metric', *(run.name for run in runs)],
        [[key, *(_last_and_best(run, key) for run in runs)] for key in keys],
    )


def _last_and_best(run: RunLog, key: str) -> str:
    steps, values = run.curve(key)
    if not values:
        return ''
    lower = any(word in key.lower() for word in _LOWER_IS_BETTER)
    known = [value for value in values if value == value] or values
    best = (min if lower else max)(known)  # NaN is neither
    unit, step = 'epoch' if run.by_epoch else 'iter.', values.index(best)
    more = f' (best {best:.4g}, {unit} {steps[step]})'
    return f'{values[-1]:.4g}' + more * (best != values[-1])


def draw_curves(
    runs: Sequence[RunLog],
    keys: Sequence[str],
    path: str | os.PathLike,
    smooth: int = 1,
) -> None:
    """Draw values of several runs into a file, a panel per key; what a
    training logs is averaged over the last ``smooth`` records."""
    columns = min(len(keys), 3)
    rows = math.ceil(len(keys) / columns)
    with figure_file(path, (4.6 * columns, 3.4 * rows)) as figure:
        for number, key in enumerate(keys, 1):
            panel = figure.add_subplot(rows, columns, number)
            units = set()
            for run in runs:
                steps, values = run.curve(key)
                measured = key in run.metrics
                units.add('epoch' if measured and run.by_epoch else 'iter.')
                if not measured:
                    ends = range(1, len(values) + 1)
                    values = [np.mean(values[:i][-smooth:]) for i in ends]
                # Also where it has no values, so that colours stay.
                marker = 'o' if measured else None
                panel.plot(steps, values, label=run.name, marker=marker)
            panel.set(title=key, xlabel=' or '.join(sorted(units)))
            panel.grid(alpha=0.3)
        figure.axes[0].legend(fontsize='small')

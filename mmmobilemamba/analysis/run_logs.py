"""Logs of trainings, resumed ones included: curves and metrics."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .figures import figure_file, markdown_rows

_NO_METRICS = ('data_time', 'time', 'step', 'iter', 'epoch', 'memory')
# What a run is first judged by, in each library.
_LEADING = ('coco/bbox_mAP', 'coco/segm_mAP', 'pascal_voc/mAP', 'mIoU')
_LEADING += ('accuracy/top1', 'single-label/f1-score')
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
        names = {key: None for record in self.val.values() for key in record}
        return [name for name in names if name not in _NO_METRICS]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Return steps, in iterations or epochs, and values of what was
        logged or measured; empty where the run has none."""
        records = self.val if key in self.metrics else self.train
        steps = [step for step in sorted(records) if key in records[step]]
        return steps, [float(records[step][key]) for step in steps]


def read_run(path: str | os.PathLike, name: str | None = None) -> RunLog:
    """Read the logs of a work folder as if it had never been stopped.

    From its first iteration on, the log of a resumed training replaces those
    before it. Raises FileNotFoundError where there is none, and ValueError
    for a log that holds something else than records.
    """
    # Time stamps sort as text.
    files = sorted(Path(path).glob('*/vis_data/scalars.json'))
    files = files or list(Path(path).glob('vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'{path} holds no */vis_data/scalars.json.')
    run = RunLog(name or Path(path).resolve().name)
    for file in files:
        records = _read_records(file)
        train = {r['iter']: r for r in records if r.get('iter')}
        val = {r['step']: r for r in records if not r.get('iter')}
        epochs = [r['epoch'] for r in train.values() if 'epoch' in r]
        if train:
            run.by_epoch = bool(epochs) and max(val, default=0) <= max(epochs)
            first = min(epochs) if run.by_epoch else min(train)
            run.val = {i: r for i, r in run.val.items() if i < first}
            first = min(train)
            run.train = {i: r for i, r in run.train.items() if i < first}
        run.train |= train
        run.val |= val
    return run


def _read_records(file: Path) -> list[dict]:
    records = []
    lines = file.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
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
    best = (min if lower else max)(values)
    unit, step = 'epoch' if run.by_epoch else 'iter.', values.index(best)
    more = f' (best {best:.4g}, {unit} {steps[step]})'
    return f'{values[-1]:.4g}' + more * (best != values[-1])


def draw_curves(
    runs: list[RunLog],
    keys: list[str],
    path: str | os.PathLike,
    smooth: int = 1,
    title: str | None = None,
) -> None:
    """Draw values of several runs into a file, a panel per key; what a
    training logs is averaged over the last ``smooth`` records."""
    columns = min(len(keys), 3)
    rows = math.ceil(len(keys) / columns)
    with figure_file(path, (4.6 * columns, 3.4 * rows)) as figure:
        figure.suptitle(title)
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        for panel, key in zip(panels, keys):
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
        panels[0].legend(fontsize='small')

"""Reading the logs of trainings, resumed ones included."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

_TIMES = ('data_time', 'time', 'step', 'iter', 'epoch', 'memory')
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

    Attributes:
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
        return [name for name in names if name not in _TIMES]

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
            steps = [self._last_iteration(epoch) for epoch in steps]
        return steps, values

    def _last_iteration(self, epoch: int) -> int:
        return max(
            (i for i, r in self.train.items() if r.get('epoch', 0) <= epoch),
            default=epoch,
        )

    def final_and_best(self, key: str) -> tuple[float, float, int] | None:
        """Return the last value of a metric, the best one, and its step.

        Args:
            key (str): Name of the metric.

        Returns:
            tuple[float, float, int]: Final value, best value and the epoch
            or iteration of the best; None where the run has none.
        """
        steps, values = self.curve(key)
        if not values:
            return None
        lower = any(word in key.lower() for word in _LOWER_IS_BETTER)
        best = (min if lower else max)(values)
        return values[-1], best, steps[values.index(best)]


def read_run(path: str | os.PathLike, name: str | None = None) -> RunLog:
    """Read the logs of a work folder.

    A folder of a resumed training has several. They are joined in the order
    of their time stamps; from its first iteration on a later one replaces
    the earlier, whose training behind the checkpoint was lost.

    Args:
        path (str or PathLike): Work folder, one of its time-stamped folders,
            or a ``scalars.json``.
        name (str, optional): Name of the run; None takes the folder's.
            Defaults to None.

    Returns:
        RunLog: The run as if it had never been stopped.

    Raises:
        FileNotFoundError: The folder holds no log.
        ValueError: A log holds something else than records.
    """
    path = Path(path)
    files = [path] if path.is_file() else _log_files(path)
    if not files:
        raise FileNotFoundError(
            f'{path} holds no */vis_data/scalars.json, which a training '
            'writes.'
        )
    run = RunLog(
        name or (path.stem if path.is_file() else path.resolve().name)
    )
    for file in files:
        _append(run, _read_records(file))
    return run


def _log_files(folder: Path) -> list[Path]:
    own = folder / 'vis_data' / 'scalars.json'
    if own.is_file():
        return [own]
    # Time stamps sort as text.
    return sorted(folder.glob('*/vis_data/scalars.json'))


def _read_records(file: Path) -> list[dict]:
    records = []
    lines = file.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):  # the process died while writing
                break
            raise ValueError(f'{file}:{number} is no record.') from error
        if not isinstance(record, dict):
            raise ValueError(f'{file}:{number} is no record.')
        records.append(record)
    return records


def _append(run: RunLog, records: list[dict]) -> None:
    """Let a run go on with the records of a later log."""
    train = {r['iter']: r for r in records if r.get('iter')}
    val = {r['step']: r for r in records if not r.get('iter') and 'step' in r}
    epochs = [r['epoch'] for r in train.values() if 'epoch' in r]
    by_epoch = bool(epochs) and max(val, default=0) <= max(epochs)
    if train:
        first = min(train)
        run.train = {i: r for i, r in run.train.items() if i < first}
        first = min(epochs) if by_epoch else first
        run.val = {i: r for i, r in run.val.items() if i < first}
        run.by_epoch = by_epoch
    run.train.update(train)
    run.val.update(val)


def default_keys(runs: list[RunLog]) -> list[str]:
    """Choose what to draw of some runs.

    Args:
        runs (list[RunLog]): Runs to compare.

    Returns:
        list[str]: The loss and the metrics that the runs' libraries are
        judged by, or all metrics where none of these is known.
    """
    found = list(dict.fromkeys(k for run in runs for k in run.metrics))
    leading = [key for key in _LEADING if key in found]
    loss = any('loss' in r for run in runs for r in run.train.values())
    return ['loss'] * loss + (leading or found)


def markdown_table(runs: list[RunLog], keys: list[str] | None = None) -> str:
    """Lay the metrics of some runs side by side.

    Args:
        runs (list[RunLog]): Runs to compare.
        keys (list[str], optional): Metrics; None takes all. Defaults to
            None.

    Returns:
        str: A table with a row per metric and a column per run, the last
        value and, where it is another one, the best with its step.
    """
    keys = keys or list(dict.fromkeys(k for run in runs for k in run.metrics))
    lines = [
        '| metric | ' + ' | '.join(run.name for run in runs) + ' |',
        '|---|' + '---:|' * len(runs),
    ]
    for key in keys:
        cells = []
        for run in runs:
            found = run.final_and_best(key)
            if found is None:
                cells.append('')
                continue
            final, best, step = found
            unit = 'epoch' if run.by_epoch and key in run.metrics else 'iter.'
            extra = (
                '' if best == final else f' (best {best:.4g}, {unit} {step})'
            )
            cells.append(f'{final:.4g}{extra}')
        lines.append(f'| {key} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)

"""Training several configs in turn, to be compared."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from ..apis.config import load_config
from ..apis.options import build_runner, set_loader_defaults
from ..checkpoints.atomic import atomic_write
from .candidates import build_candidate
from .preparation import make_pictures, prepare
from .requests import Form, Request
from .run_logs import default_keys, read_run
from .timing import time_interleaved

FORMS = dict(plain=Form(deploy=False), fused=Form())
SPEED_ROUNDS = 20
SPEED_SECONDS = 60


@dataclass(frozen=True)
class Training:
    """A training that ``tools/train.py`` runs, and what it leaves.

    Args:
        config (Path): Config file with a ``work_dir``.
    """

    config: Path

    @property
    def cfg(self) -> Config:
        """The config."""
        return load_config(self.config)

    @property
    def work_dir(self) -> Path:
        """Folder of its logs and checkpoints."""
        return Path(self.cfg.work_dir)

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint that a finished training leaves."""
        kind, length = _length(self.cfg)
        return self.work_dir / f'{kind}_{length}.pth'

    @property
    def cost(self) -> dict:
        """Seconds that it took, parts of an interrupted one together, and
        the bytes of memory at its peak."""
        file = self.work_dir / 'training_cost.json'
        if not file.is_file():
            return dict(seconds=0.0, peak_bytes=0)
        return json.loads(file.read_text())

    def run(self, tool: Path) -> int:
        """Train, going on where it was interrupted; not a second time.

        Args:
            tool (Path): ``tools/train.py``.

        Returns:
            int: Exit status, 0 where it is finished.
        """
        if self.last_checkpoint.is_file():
            return 0
        command = [sys.executable, str(tool), str(self.config)]
        command += ['--resume', 'auto']
        print_log(shlex.join(command), logger='current')
        cost, start, peak = self.cost, time.perf_counter(), 0
        try:
            with subprocess.Popen(command) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * 1024
        finally:
            cost['seconds'] += time.perf_counter() - start
            cost['peak_bytes'] = max(cost['peak_bytes'], peak)
            write_text(self.work_dir / 'training_cost.json', json.dumps(cost))
        return process.returncode

    @property
    def peak_bytes(self) -> int:
        """Memory of the training at its peak: what torch allocated on a GPU,
        else what the process had resident."""
        records = read_run(self.work_dir).train.values()
        on_gpu = max((r.get('memory', 0) for r in records), default=0)
        return int(on_gpu * 2**20) or self.cost['peak_bytes']

    def main_metric(self) -> str:
        """Return the name of what its library is first judged by.

        Raises:
            ValueError: Nothing was measured.
        """
        keys = default_keys([read_run(self.work_dir)])
        keys = [key for key in keys if key != 'loss']
        if not keys:
            raise ValueError(f'{self.config} measures nothing by validation.')
        return keys[0]

    def evaluate(self, metric: str) -> float:
        """Return a metric of the finished training.

        Args:
            metric (str): Its name in the logs.

        Returns:
            float: Its value after the last step, not the best one.

        Raises:
            ValueError: There is no such metric.
        """
        run = read_run(self.work_dir)
        steps, values = run.curve(metric)
        if steps and steps[-1] == _length(self.cfg)[1]:
            return values[-1]
        # It was stopped between the last checkpoint and its evaluation.
        cfg = self.cfg
        set_loader_defaults(cfg)
        cfg.load_from = str(self.last_checkpoint)
        cfg.work_dir = str(self.work_dir / 'evaluation')
        found = build_runner(cfg).val()
        if metric not in found:
            raise ValueError(
                f'{metric!r} is no metric of {self.config}; it has '
                f'{", ".join(found)}.'
            )
        return float(found[metric])


def run_or_exit(training: Training, tool: Path) -> None:
    """Train, or end this program with a message.

    Args:
        training (Training): What to train.
        tool (Path): ``tools/train.py``.
    """
    code = training.run(tool)
    if code:
        sys.exit(
            f'error: {training.config.stem} ended with exit status {code}, '
            'see above. The same command goes on from where it is.'
        )


def write_trainings(configs: Mapping[Path, Config]) -> list[Training]:
    """Write the configs of trainings, unless other ones began there.

    Args:
        configs (Mapping[Path, Config]): Configs by the file to write.

    Returns:
        list[Training]: The trainings in that order.

    Raises:
        ValueError: A work folder holds checkpoints of other settings.
    """
    old = []
    for path, cfg in configs.items():
        # They fit neither other data nor another schedule.
        if path.is_file() and path.read_text() != cfg.pretty_text:
            old += [str(p) for p in Path(cfg.work_dir).glob('*.pth')]
    if old:
        raise ValueError(
            'These were trained with other settings; delete them, or name '
            f'another folder with --out: {", ".join(old)}.'
        )
    for path, cfg in configs.items():
        write_text(path, cfg.pretty_text)
    return [Training(path) for path in configs]


def measure_speeds(
    configs: Mapping[str, Path], size: tuple[int, int], batch: int
) -> dict[str, dict[str, float]]:
    """Time the networks of some configs in interleaved rounds.

    Args:
        configs (Mapping[str, Path]): Config files by name.
        size (tuple[int, int]): Height and width of the pictures.
        batch (int): Pictures per call.

    Returns:
        dict[str, dict[str, float]]: Images per second by name and form,
        ``'plain'`` and ``'fused'``.
    """
    device, calls = get_device(), {}
    for name, config in configs.items():
        for key, form in FORMS.items():
            request = Request(name, 'config', str(config), size, form)
            call = prepare(build_candidate(request), form, device)
            pictures = make_pictures(batch, size, form, device)
            calls[name, key] = partial(call, pictures)
    with torch.inference_mode():
        times = time_interleaved(
            calls, SPEED_ROUNDS, budget=SPEED_SECONDS, device=device
        )
    speeds: dict[str, dict[str, float]] = {}
    for (name, key), timing in times.items():
        speeds.setdefault(name, {})[key] = round(batch / timing.median, 1)
    return speeds


def describe_device() -> str:
    """Name the device that trainings and timings use.

    Returns:
        str: The GPU, or the kind of device and torch's threads.
    """
    device = get_device()
    if device == 'cuda':
        return torch.cuda.get_device_name()
    return f'{device}, {torch.get_num_threads()} threads'


def check_least(values: Mapping[str, int], least: Mapping[str, int]) -> None:
    """Check that arguments are not too small.

    Args:
        values (Mapping[str, int]): Values of all arguments by name.
        least (Mapping[str, int]): The smallest that some may have.

    Raises:
        ValueError: One is smaller.
    """
    for name, low in least.items():
        if values[name] < low:
            option = name.replace('_', '-')
            raise ValueError(
                f'--{option} must be {low} or more, got {values[name]}.'
            )


def write_text(path: Path, text: str) -> None:
    """Write a text file whole.

    Args:
        path (Path): File; its folder is made.
        text (str): Content.
    """
    with atomic_write(path) as draft:
        draft.write_text(text)


def _length(cfg: Config) -> tuple[str, int]:
    """Return what a training is counted in, and its length."""
    if 'max_iters' in cfg.train_cfg:
        return 'iter', cfg.train_cfg.max_iters
    return 'epoch', cfg.train_cfg.max_epochs

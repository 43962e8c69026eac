"""Trainings in processes of their own, resumed where they were stopped."""

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ..checkpoints.atomic import atomic_write
from .config import load_config


class FinishedTraining(NamedTuple):
    """Last checkpoint of a training, and the time that all its parts took."""

    checkpoint: Path
    seconds: float


def training_length(cfg: Config) -> tuple[str, int]:
    """Return unit and length of a training, such as ``('epoch', 12)``."""
    kind = 'iter' if 'max_iters' in cfg.train_cfg else 'epoch'
    return kind, cfg.train_cfg[f'max_{kind}s']


def write_training_config(cfg: Config, path: Path) -> None:
    """Write the config of a training, or raise a ValueError where its work
    folder holds checkpoints of other settings."""
    trained = list(Path(cfg.work_dir).glob('*.pth'))
    if trained and path.is_file() and path.read_text() != cfg.pretty_text:
        raise ValueError(
            f'{cfg.work_dir} was trained with other settings, those of '
            f'{path}; delete it, or name another folder.'
        )
    with atomic_write(path) as draft:
        draft.write_text(cfg.pretty_text)


def run_training(config: Path, tool: Path) -> FinishedTraining:
    """Train a config that has a ``work_dir`` in a process of its own.

    A training that was interrupted goes on, a finished one is taken as it is.
    ``tool`` is ``tools/train.py``; its failure is a ChildProcessError.
    """
    cfg = load_config(config)
    kind, length = training_length(cfg)
    checkpoint = Path(cfg.work_dir, f'{kind}_{length}.pth')
    file = Path(cfg.work_dir, 'training_seconds.txt')
    seconds = float(file.read_text()) if file.is_file() else 0.0
    if checkpoint.is_file():
        return FinishedTraining(checkpoint, seconds)
    started = time.perf_counter()
    command = [sys.executable, str(tool), str(config), '--resume']
    try:
        code = subprocess.run(command).returncode
    finally:
        seconds += time.perf_counter() - started
        with atomic_write(file) as draft:
            draft.write_text(str(seconds))
    if code:
        raise ChildProcessError(f'{config} ended with exit status {code}.')
    return FinishedTraining(checkpoint, seconds)

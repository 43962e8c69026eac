"""Deciding which checkpoint a run starts from."""

import os.path as osp
import zipfile
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from .checkpoint import (
    CheckpointError,
    load_checkpoint,
    read_checkpoint,
)

_RESUME_ENTRIES = ('meta', 'state_dict', 'message_hub', 'optimizer')


def settle_start(runner: Runner, weights: str | None = None) -> None:
    """Decide which checkpoint a training starts from, once, and check it.

    A run that resumes by itself takes the newest checkpoint of its folder
    that is whole. Those that are damaged, of another network or no checkpoints
    at all are named in a warning and passed over.

    Args:
        runner (Runner): Runner or FlexibleRunner that has not started; from
            here on it resumes from one file, loads one, or does neither.
        weights (str, optional): Checkpoint with weights to start from where
            none can be resumed from. Defaults to None.

    Raises:
        FileNotFoundError: The checkpoint that was named is not there.
        CheckpointError: It does not fit, or all that are whole belong to
            another network, which a new training would overwrite.
    """
    if getattr(runner, '_start_is_settled', False):
        return
    if isinstance(runner._resume, str):  # FlexibleRunner's other form
        runner._resume, runner._load_from = True, runner._resume
    if runner._resume and runner._load_from is None:
        path = _newest_of_all(runner)
        runner._resume, runner._load_from = path is not None, path or weights
    elif runner._resume:
        _check_resume(runner, runner._load_from)
    if runner._load_from and not runner._resume:
        load_checkpoint(model_of(runner), runner._load_from, partial=True)
    runner._start_is_settled = True


def model_of(runner: Runner) -> nn.Module:
    """Return the model of a Runner, or of a FlexibleRunner before it ran."""
    if not isinstance(runner.model, nn.Module):
        runner.model = runner.strategy.build_model(runner.model)
    return runner.model


def _newest_of_all(runner: Runner) -> str | None:
    """Let one process decide for all."""
    answer = [None, '']
    if is_main_process():
        try:
            answer[0] = _newest(runner)
        except CheckpointError as error:
            answer[1] = str(error)
    broadcast_object_list(answer)
    path, problem = answer
    if problem:
        raise CheckpointError(problem)
    return path


def _newest(runner: Runner) -> str | None:
    foreign = ''
    for path in _checkpoints_of(runner.work_dir):
        try:
            _check_resume(runner, path)
        except (FileNotFoundError, CheckpointError) as error:
            if isinstance(error, _ForeignError):
                foreign = path
            reason = ' '.join(str(error).split())
            runner.logger.warning(
                f'Passed over {path} for the checkpoint before: {reason}'
            )
            continue
        runner.logger.info(f'Training goes on from {path}.')
        return path
    if foreign:
        raise CheckpointError(
            f'{runner.work_dir} holds the checkpoints of another network, '
            f'such as {foreign}, and none to resume from. Choose another '
            'folder with --work-dir.'
        )
    return None


class _ForeignError(CheckpointError):
    """A whole checkpoint belongs to another network."""


def _checkpoints_of(work_dir: str) -> list[str]:
    """List what a training left: the latest by its own account, then by age.

    ``best_*.pth`` hold weights only. No file is looked into.
    """
    latest = None
    if osp.isfile(osp.join(work_dir, 'last_checkpoint')):
        latest = find_latest_checkpoint(work_dir)
    latest = osp.abspath(latest) if latest else None
    # CheckpointHook may save to a folder of its own.
    folders = {osp.abspath(work_dir)}
    if latest:
        folders.add(osp.dirname(latest))
    paths = [
        path
        for folder in folders
        for path in Path(folder).glob('*.pth')
        if not path.name.startswith('best_')
    ]
    paths = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    names = [str(path) for path in paths]
    return [latest, *(x for x in names if x != latest)] if latest else names


def _check_resume(runner: Runner, path: str) -> None:
    """Raise where a training cannot go on from a checkpoint."""
    if osp.isdir(path):  # pieces, which a strategy puts together by itself
        return
    content = read_checkpoint(path)
    _check_sums(osp.expanduser(path))
    missing = [name for name in _RESUME_ENTRIES if name not in content]
    if missing:
        raise CheckpointError(
            f'{path} cannot be resumed from: it has no {", ".join(missing)}. '
            'To start a new training from its weights, pass --cfg-options '
            f'load_from={path} instead.'
        )
    try:
        load_checkpoint(model_of(runner), path)
    except CheckpointError as error:
        raise _ForeignError(str(error)) from error


def _check_sums(path: str) -> None:
    """Compare a file with the check sums in it, which torch.load ignores."""
    if not zipfile.is_zipfile(path):  # torch's format before 1.6 has none
        return
    with zipfile.ZipFile(path) as file:
        broken = file.testzip()
    if broken:
        raise CheckpointError(f'{path} is damaged: its part {broken} changed.')

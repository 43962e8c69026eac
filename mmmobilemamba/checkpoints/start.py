"""Deciding which checkpoint a run starts from."""

import os.path as osp
import zipfile
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner, find_latest_checkpoint
from torch import Tensor, nn

from .checkpoint import (
    CheckpointError,
    find_tensors,
    load_checkpoint,
    load_weights,
    read_checkpoint,
)


def settle_start(runner: Runner, weights: str | None = None) -> None:
    """Decide which checkpoint a training starts from, and check it.

    A run that resumes by itself takes the newest one of its folder that is
    whole and fits. A warning names those that it passes over.

    Args:
        runner (Runner): Runner or FlexibleRunner that has not started; from
            here on it resumes from one file, loads one, or does neither.
        weights (str, optional): Checkpoint with weights to start from where
            there is none to resume from. Defaults to None.

    Raises:
        FileNotFoundError: A checkpoint that was named is not there.
        CheckpointError: It does not fit, or those of the folder, which a new
            training would overwrite, do not.
    """
    if isinstance(runner._resume, str):  # FlexibleRunner's other form
        runner._resume, runner._load_from = True, runner._resume
    if runner._resume and runner._load_from is None:
        # One process decides for all.
        answer = [_newest(runner) if is_main_process() else None]
        broadcast_object_list(answer)
        if isinstance(answer[0], CheckpointError):
            raise answer[0]
        runner._resume = answer[0] is not None
        runner._load_from = answer[0] or weights
    elif runner._resume and not osp.isdir(runner._load_from):
        tensors = _read_whole(runner._load_from)
        load_weights(model_of(runner), tensors, runner._load_from)
    if runner._load_from and not runner._resume:
        load_checkpoint(model_of(runner), runner._load_from, partial=True)


def model_of(runner: Runner) -> nn.Module:
    """Return the model of a Runner, or of a FlexibleRunner before it ran."""
    if not isinstance(runner.model, nn.Module):
        runner.model = runner.strategy.build_model(runner.model)
    return runner.model


def _newest(runner: Runner) -> str | CheckpointError | None:
    """Return the newest checkpoint that fits, or why none is to be had."""
    whole = None
    for path in _checkpoints_of(runner.work_dir):
        try:
            if not osp.isdir(path):  # pieces, for a strategy to put together
                tensors, whole = _read_whole(path), path
                load_weights(model_of(runner), tensors, path)
            return path
        except (FileNotFoundError, CheckpointError) as error:
            reason = ' '.join(str(error).split())
            runner.logger.warning(f'Passed over {path}: {reason}')
    if whole:
        return CheckpointError(
            f'{runner.work_dir} holds checkpoints of another network, such as '
            f'{whole}. Choose another folder with --work-dir.'
        )
    return None


def _checkpoints_of(work_dir: str) -> list[str]:
    """List what a training left, the one that it names the latest first."""
    latest = find_latest_checkpoint(work_dir)
    # CheckpointHook may save to a folder of its own.
    first = [Path(latest).absolute()] if latest else []
    folders = {Path(work_dir).absolute(), *(path.parent for path in first)}
    others = [
        path
        for folder in folders
        for path in folder.glob('*.pth')
        # The best ones hold weights only.
        if not path.name.startswith('best_') and path not in first
    ]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path) for path in first + others]


def _read_whole(path: str) -> dict[str, Tensor]:
    """Return the tensors of a file if all is there to go on from."""
    content = read_checkpoint(path)
    path = osp.expanduser(path)
    # Check sums, which torch.load ignores; its format before 1.6 has none.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
        if broken:
            raise CheckpointError(f'{path} is damaged: {broken} changed.')
    needed = ('meta', 'state_dict', 'message_hub', 'optimizer')
    missing = [name for name in needed if name not in content]
    if missing:
        raise CheckpointError(
            f'{path} cannot be resumed from: it has no {", ".join(missing)}. '
            f'Start anew from its weights with --cfg-options load_from={path}.'
        )
    return find_tensors(content)[0]

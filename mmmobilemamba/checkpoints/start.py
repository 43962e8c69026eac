"""Checking the checkpoint that a run starts from.

mmengine loads with ``strict=False``: a foreign file leaves a network as it was
initialised, and evaluates as noise. These checks come before the data is read.
"""

import os.path as osp
import zipfile
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from .checkpoint import fit_report, is_local, read_checkpoint, weights_of
from .key_map import is_published

_RESUME_ENTRIES = ('meta', 'state_dict', 'message_hub', 'optimizer')
_CONVERTER = 'tools/model_converters/mobilemamba_to_mm.py'


def check_resume(path: str) -> None:
    """Check that training can go on from a checkpoint.

    Args:
        path (str): Checkpoint.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: The file is damaged, or holds weights without the state
            of a training.
    """
    content = read_checkpoint(path)
    if is_local(path):
        _check_sums(path)
    missing = [name for name in _RESUME_ENTRIES if name not in content]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed from: it has no {", ".join(missing)}. '
            'To start a new training from its weights, pass --cfg-options '
            f'load_from={path} instead.'
        )


def checkpoints_of(work_dir: str) -> list[str]:
    """List the checkpoints that a training left, to resume from.

    Args:
        work_dir (str): Folder of the run.

    Returns:
        list[str]: That which ``last_checkpoint`` names, then those of the
        folder from new to old; ``best_*.pth`` hold weights only and are left
        out. None of them is looked into.
    """
    latest = None
    if osp.isfile(osp.join(work_dir, 'last_checkpoint')):
        latest = find_latest_checkpoint(work_dir)
    # CheckpointHook may save to a folder of its own.
    folders = {osp.abspath(work_dir)}
    if latest:
        folders.add(osp.dirname(osp.abspath(latest)))
    paths = [
        path
        for folder in folders
        for path in Path(folder).glob('*.pth')
        if not path.name.startswith('best_')
    ]
    paths = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    names = [str(path) for path in paths]
    if latest:
        names = [latest, *(x for x in names if not _same(x, latest))]
    return names


def choose_checkpoint(runner: Runner, otherwise: str | None = None) -> None:
    """Let a Runner that resumes by itself take a checkpoint that is whole.

    Those that are damaged, of another network or no checkpoints at all are
    named in a warning and passed over. Nothing happens where the checkpoint
    is settled already.

    Args:
        runner (Runner): Runner that has not started.
        otherwise (str, optional): Checkpoint with weights to start from
            where none can be resumed from. Defaults to None.

    Raises:
        ValueError: All that are whole belong to another network, which a new
            training would overwrite.
    """
    if runner._resume is not True or runner._load_from is not None:
        return
    # One process decides for all.
    answer = [None, '']
    if is_main_process():
        try:
            answer[0] = _newest(runner)
        except ValueError as error:
            answer[1] = str(error)
    broadcast_object_list(answer)
    path, problem = answer
    if problem:
        raise ValueError(problem)
    if path is None and otherwise:
        check_match(runner.model, otherwise, partial=True)
    # mmengine would look for the latest by itself.
    runner._resume = path is not None
    runner._load_from = path or otherwise


def _newest(runner: Runner) -> str | None:
    foreign = ''
    for path in checkpoints_of(runner.work_dir):
        try:
            check_resume(path)
        except (FileNotFoundError, ValueError) as error:
            _skip(runner, path, error)
            continue
        try:
            check_match(runner.model, path)
        except ValueError as error:
            foreign = path
            _skip(runner, path, error)
            continue
        runner.logger.info(f'Training goes on from {path}.')
        return path
    if foreign:
        raise ValueError(
            f'{runner.work_dir} holds the checkpoints of another network, '
            f'such as {foreign}, and none to resume from. Choose another '
            'folder with --work-dir.'
        )
    return None


def _skip(runner: Runner, path: str, error: Exception) -> None:
    reason = ' '.join(str(error).split())
    runner.logger.warning(
        f'Passed over {path} for the checkpoint before: {reason}'
    )


def _check_sums(path: str) -> None:
    """Compare a file with the check sums in it, which torch.load ignores."""
    path = osp.expanduser(path)
    if not zipfile.is_zipfile(path):  # torch's format before 1.6 has none
        return
    with zipfile.ZipFile(path) as file:
        broken = file.testzip()
    if broken:
        raise ValueError(f'{path} is damaged: its part {broken} changed.')


def _same(path: str, other: str) -> bool:
    return osp.abspath(path) == osp.abspath(other)


def check_match(model: nn.Module, path: str, partial: bool = False) -> None:
    """Check that a checkpoint is one of this model.

    Args:
        model (nn.Module): Model, bare or wrapped as the Runner does.
        path (str): File or address of the checkpoint.
        partial (bool): Accept a file that matches in part. Defaults to
            False.

    Raises:
        ValueError: Tensors are missing, left over or of another shape, or
            with ``partial`` not one matches.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    tensors = weights_of(read_checkpoint(path))
    if not tensors or is_published(tensors):
        raise ValueError(
            f'{path} is no file of mmengine. If it is a published one, '
            f'convert it: python {_CONVERTER} {path} CONVERTED.pth'
        )
    if not partial:
        problems = fit_report(model, tensors, path)
        if problems:
            raise ValueError(problems)
        return
    wanted = model.state_dict()
    if not any(
        name in tensors and tensors[name].shape == value.shape
        for name, value in wanted.items()
    ):
        raise ValueError(
            f'{path} does not fit {type(model).__name__}: no tensor matches '
            f'by name and shape. It has {next(iter(tensors))}, the model '
            f'{next(iter(wanted))}.'
        )

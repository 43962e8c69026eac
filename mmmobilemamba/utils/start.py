"""Checking the checkpoint that a run starts from.

mmengine loads with ``strict=False``: a foreign file leaves a network as it was
initialised, and evaluates as noise. These checks come before the data is read.
"""

import os.path as osp

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint
from torch import Tensor, nn

from .checkpoint import fit_report, load_file, read_state_dict
from .key_map import is_published

_RESUME_ENTRIES = ('meta', 'state_dict', 'message_hub', 'optimizer')
_CONVERTER = 'tools/model_converters/mobilemamba_to_mm.py'


def is_local(path: str) -> bool:
    """Tell whether a checkpoint is a file rather than an address.

    Args:
        path (str): What the user gave.

    Returns:
        bool: False for ``https://``, ``open-mmlab://`` and their like.
    """
    return '://' not in path


def check_checkpoint_file(path: str) -> None:
    """Check that a local checkpoint exists; addresses pass.

    Args:
        path (str): File or address.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if is_local(path) and not osp.isfile(osp.expanduser(path)):
        raise FileNotFoundError(f'Checkpoint {path} does not exist.')


def check_resume(path: str | None, work_dir: str) -> str | None:
    """Find the checkpoint that training goes on from, and look into it.

    Args:
        path (str, optional): Checkpoint; None takes the latest of
            ``work_dir``.
        work_dir (str): Folder of the run.

    Returns:
        str: The checkpoint, or None where ``work_dir`` has none yet.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: The file holds weights without the state of a training.
    """
    if path is None:
        if not osp.isfile(osp.join(work_dir, 'last_checkpoint')):
            return None
        path = find_latest_checkpoint(work_dir)
    check_checkpoint_file(path)
    if not is_local(path):
        return path
    content = load_file(osp.expanduser(path))
    missing = [
        name
        for name in _RESUME_ENTRIES
        if not isinstance(content, dict) or name not in content
    ]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed from: it has no {", ".join(missing)}. '
            'To start a new training from its weights, pass --cfg-options '
            f'load_from={path} instead.'
        )
    return path


def check_match(runner: Runner, path: str, partial: bool = False) -> None:
    """Check that a checkpoint is one of the Runner's model.

    Args:
        runner (Runner): Runner whose model is built.
        path (str): File or address of the checkpoint.
        partial (bool): Accept a file that matches in part. Defaults to
            False.

    Raises:
        ValueError: Tensors are missing, left over or of another shape, or
            with ``partial`` not one matches.
    """
    model = _bare(runner.model)
    tensors = _read(path)
    if is_published(tensors):
        raise ValueError(
            f'{path} has the names of the published files. Convert it once: '
            f'python {_CONVERTER} {path} CONVERTED.pth'
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


def _bare(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _read(path: str) -> dict[str, Tensor]:
    if is_local(path):
        return read_state_dict(osp.expanduser(path))
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    return content.get('state_dict', content)

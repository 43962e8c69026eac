"""Checking the checkpoint that a run starts from.

mmengine loads with ``strict=False``: a foreign file leaves a network as it was
initialised, and evaluates as noise. These checks come before the data is read.
"""

import os.path as osp

from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import find_latest_checkpoint
from torch import nn

from .checkpoint import fit_report, read_checkpoint, weights_of
from .key_map import is_published

_RESUME_ENTRIES = ('meta', 'state_dict', 'message_hub', 'optimizer')
_CONVERTER = 'tools/model_converters/mobilemamba_to_mm.py'


def check_teacher(cfg: Config) -> None:
    """Check that what a distillation learns from is there.

    Args:
        cfg (Config): Config of a training, with a teacher or without.

    Raises:
        FileNotFoundError: The teacher's weights are missing.
        ValueError: Its config is incomplete.
    """
    model = cfg.get('model') or {}
    kind = str(model.get('type')).rpartition('.')[2]
    if kind != 'DistilledClassifier':
        return
    # Imported here, because the classifier itself reads this module.
    from ..models.classifiers.distilled import DEFAULT_TEACHER
    from ..models.classifiers.teacher import read_teacher_config, teacher_name

    teacher = read_teacher_config(model.get('teacher') or DEFAULT_TEACHER)
    check_teacher_file(model.get('teacher_ckpt'), teacher_name(teacher))


def check_teacher_file(path: str | None, teacher: str) -> None:
    """Check that a teacher's weights lie where the config says.

    Args:
        path (str, optional): Value of ``teacher_ckpt``.
        teacher (str): Name of the teacher, for the message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if path and osp.isfile(osp.expanduser(path)):
        return
    raise FileNotFoundError(
        f'model.teacher_ckpt={path!r} is no file. Distillation needs the '
        f'weights of the teacher, {teacher}: put them there, or name the '
        'file with --cfg-options model.teacher_ckpt=PATH. Nothing is '
        'downloaded for you.'
    )


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
    content = read_checkpoint(path)
    missing = [name for name in _RESUME_ENTRIES if name not in content]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed from: it has no {", ".join(missing)}. '
            'To start a new training from its weights, pass --cfg-options '
            f'load_from={path} instead.'
        )
    return path


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

"""From the checkpoint of a classifier to a file for a backbone."""

import os

import torch
from torch import Tensor

from ..version import __version__
from .atomic import atomic_write
from .checkpoint import read_checkpoint, weights_of

_PREFIX = 'backbone.'


def extract_backbone(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    raw: bool = False,
    overwrite: bool = False,
) -> str:
    """Write the backbone of a trained classifier to a file of its own.

    mmengine's EMAHook keeps the moving average, which evaluation measured,
    as the weights of the file, and those that were trained beside it.

    Args:
        src (str or PathLike): Checkpoint of mmengine.
        dst (str or PathLike): File to write, whole or not at all.
        raw (bool): Take the trained weights instead of their moving average.
            Defaults to False.
        overwrite (bool): Replace ``dst`` if it exists. Defaults to False.

    Returns:
        str: What was written, in one line.

    Raises:
        FileNotFoundError: ``src`` does not exist.
        FileExistsError: ``dst`` exists and ``overwrite`` is False.
        ValueError: The file holds no backbone, or ``raw`` is asked of a file
            without a moving average.
    """
    src = os.fspath(src)
    if os.path.exists(dst) and not overwrite:
        raise FileExistsError(
            f'{dst} exists; choose another name or pass --overwrite.'
        )
    content = read_checkpoint(src)
    averaged = 'ema_state_dict' in content
    if raw and not averaged:
        raise ValueError(
            f'{src} has no moving average; leave out --raw to take its one '
            'set of weights.'
        )
    tensors = weights_of(
        {'state_dict': content['ema_state_dict']} if raw else content
    )
    backbone: dict[str, Tensor] = {
        name.removeprefix(_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(_PREFIX)
    }
    if not backbone:
        raise ValueError(
            f'{src} has no tensors named {_PREFIX}*; expected the checkpoint '
            'of a classifier that mmengine wrote. A published file needs no '
            'conversion for init_cfg.'
        )
    meta = {
        'source': os.path.basename(src),
        'moving_average': averaged and not raw,
        'mmmobilemamba_version': __version__,
    }
    with atomic_write(dst) as path:
        torch.save({'meta': meta, 'state_dict': backbone}, path)
    kind = 'moving average' if meta['moving_average'] else 'weights'
    return (
        f'{src}: {kind} of {len(backbone)} backbone tensors, written to {dst}'
    )

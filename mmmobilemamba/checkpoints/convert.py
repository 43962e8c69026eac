"""From one checkpoint file to another: published names, bare backbones."""

import os

import torch
from torch import Tensor

from ..registry import MODELS
from ..version import __version__
from .atomic import atomic_write
from .checkpoint import (
    HEADS,
    CheckpointError,
    backbone_tensors,
    find_tensors,
    load_weights,
    read_checkpoint,
)
from .key_map import is_published, state_dict_from_published

# One of each set of widths that was published.
_ARCHS = ('t2', 't4', 's6', 'b1')


def convert_file(src: str | os.PathLike, dst: str | os.PathLike) -> str:
    """Convert a published checkpoint file to our names.

    Args:
        src (str or PathLike): File to read.
        dst (str or PathLike): File to write, whole or not at all.

    Returns:
        str: What was converted, in one line.

    Raises:
        OSError: ``src`` does not exist, or ``dst`` does.
        CheckpointError: The file is no MobileMamba checkpoint of a published
            variant, or does not fit it; the message names the tensors.
    """
    tensors, place = find_tensors(read_checkpoint(src))
    if not is_published(tensors):
        raise CheckpointError(
            f'{src}, {place}, has no names of a published MobileMamba. A file '
            'of ours needs no conversion.'
        )
    arch = _find_arch(tensors, src)
    dense = any(name.startswith('backbone.') for name in tensors)
    ours = {
        name if dense or name.startswith(HEADS) else f'backbone.{name}': value
        for name, value in state_dict_from_published(tensors).items()
    }
    _save(dst, ours, arch=arch, source=os.path.basename(src))
    kind = 'dense model' if dense else 'classifier'
    return f'{src}, {place}: {kind} with a {arch} backbone, written to {dst}'


def extract_backbone(
    src: str | os.PathLike, dst: str | os.PathLike, raw: bool = False
) -> str:
    """Write the backbone of a trained model to a file of its own.

    mmengine's EMAHook keeps the moving average, which evaluation measured,
    as the weights of the file, and those that were trained beside it.

    Args:
        src (str or PathLike): Checkpoint of mmengine.
        dst (str or PathLike): File to write, whole or not at all.
        raw (bool): Take the trained weights instead of their moving average.
            Defaults to False.

    Returns:
        str: What was written, in one line.

    Raises:
        OSError: ``src`` does not exist, or ``dst`` does.
        CheckpointError: The file holds no backbone, or ``raw`` is asked of a
            file without a moving average.
    """
    content = read_checkpoint(src)
    averaged = 'ema_state_dict' in content and not raw
    if raw:
        content = dict(state_dict=content.get('ema_state_dict', {}))
    tensors, _ = find_tensors(content)
    if not any(name.startswith('backbone.') for name in tensors):
        raise CheckpointError(
            f'{src} has no tensors named backbone.*; expected the checkpoint '
            'of a classifier that mmengine wrote, for --raw with a moving '
            'average. A published file needs no conversion for init_cfg.'
        )
    tensors = backbone_tensors(tensors)
    source = os.path.basename(src)
    _save(dst, tensors, source=source, moving_average=averaged)
    kind = 'moving average' if averaged else 'weights'
    return (
        f'{src}: {kind} of {len(tensors)} backbone tensors, written to {dst}'
    )


def _save(dst: str | os.PathLike, tensors: dict[str, Tensor], **meta) -> None:
    if os.path.exists(dst):
        raise FileExistsError(f'{dst} exists; choose another name.')
    meta['mmmobilemamba_version'] = __version__
    with atomic_write(dst) as draft:
        torch.save(dict(meta=meta, state_dict=tensors), draft)


def _find_arch(tensors: dict[str, Tensor], src: str | os.PathLike) -> str:
    """Return the variant whose tensors these are, or say what does not fit."""
    tensors = backbone_tensors(tensors)
    first = tensors.get('patch_embed.0.c.weight', torch.empty(0)).shape
    for arch in _ARCHS:
        with torch.device('meta'):  # without the time of initial values
            config = dict(type='mmmobilemamba.MobileMamba', arch=arch)
            model = MODELS.build(config).to_empty(device='cpu')
        if model.stem[0].conv.weight.shape == first:
            break
    load_weights(model, tensors, src)
    return arch

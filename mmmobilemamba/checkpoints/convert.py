"""From one checkpoint file to another: published names, bare backbones."""

import os

import torch

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

# Channels of the first convolution -> a variant that has them.
_ARCHS = {18: 't2', 22: 't4', 24: 's6', 25: 'b1'}


def convert_file(src: str | os.PathLike, dst: str | os.PathLike) -> str:
    """Convert a published checkpoint file to our names.

    Args:
        src (str or PathLike): File to read.
        dst (str or PathLike): File to write, whole or not at all.

    Returns:
        str: What was converted, in one line.

    Raises:
        OSError: ``src`` does not exist, or ``dst`` does.
        CheckpointError: The file is no published MobileMamba, or does not
            fit; the message names the tensors.
    """
    tensors, place = find_tensors(read_checkpoint(src))
    if not is_published(tensors):
        raise CheckpointError(
            f'{src}, {place}, has no names of a published MobileMamba. A file '
            'of ours needs no conversion.'
        )
    backbone = backbone_tensors(tensors)
    first = backbone.get('patch_embed.0.c.weight', torch.empty(0))
    arch = _ARCHS.get(first.numel() // 27, 't2')
    with torch.device('meta'):  # without the time of initial values
        config = dict(type='mmmobilemamba.MobileMamba', arch=arch)
        model = MODELS.build(config)
    load_weights(model.to_empty(device='cpu'), backbone, src)
    dense = any(name.startswith('backbone.') for name in tensors)
    ours = {
        name if dense or name.startswith(HEADS) else f'backbone.{name}': value
        for name, value in state_dict_from_published(tensors).items()
    }
    kind = 'dense model' if dense else 'classifier'
    return _save(dst, ours, f'{src}, {place}: {kind} with a {arch} backbone')


def extract_backbone(
    src: str | os.PathLike, dst: str | os.PathLike, raw: bool = False
) -> str:
    """Write the backbone of a trained model to a file of its own.

    Args:
        src (str or PathLike): Checkpoint of mmengine. Its EMAHook keeps the
            moving average as the weights, and the trained ones beside it.
        dst (str or PathLike): File to write, whole or not at all.
        raw (bool): Take the trained weights instead of their moving average.
            Defaults to False.

    Returns:
        str: What was written, in one line.

    Raises:
        OSError: ``src`` does not exist, or ``dst`` does.
        CheckpointError: The file holds no such weights of a backbone.
    """
    content = read_checkpoint(src)
    kind = 'moving average' if 'ema_state_dict' in content else 'weights'
    if raw:
        kind = 'trained weights'
        content = dict(state_dict=content.get('ema_state_dict', {}))
    tensors, _ = find_tensors(content)
    if not any(name.startswith('backbone.') for name in tensors):
        raise CheckpointError(
            f'{src} has no tensors named backbone.*; expected the checkpoint '
            'of a classifier that mmengine wrote, for --raw with a moving '
            'average. A published file needs no conversion for init_cfg.'
        )
    tensors = backbone_tensors(tensors)
    return _save(dst, tensors, f'{src}: {kind} of {len(tensors)} tensors')


def _save(dst: str | os.PathLike, tensors: dict, source: str) -> str:
    if os.path.exists(dst):
        raise FileExistsError(f'{dst} exists; choose another name.')
    meta = dict(source=source, mmmobilemamba_version=__version__)
    with atomic_write(dst) as draft:
        torch.save(dict(meta=meta, state_dict=tensors), draft)
    return f'{source}, written to {dst}'

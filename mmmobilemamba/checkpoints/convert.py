"""Conversion of whole checkpoint files between published names and ours."""

import os

import torch
from torch import Tensor

from ..version import __version__
from .atomic import atomic_write
from .checkpoint import backbone_tensors, fit_report, read_state_dict
from .key_map import (
    is_published,
    state_dict_from_published,
    state_dict_to_published,
)

_HEADS = ('head.', 'head_dist.')


def convert_file(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    container: str | None = None,
    reverse: bool = False,
    overwrite: bool = False,
) -> str:
    """Convert a checkpoint file between published names and ours.

    Args:
        src (str or PathLike): File to read.
        dst (str or PathLike): File to write, whole or not at all.
        container (str, optional): ``'net_E'``, ``'net'`` or
            ``'state_dict'``; None takes the first that is there. Defaults
            to None.
        reverse (bool): Read our names and write published ones. Defaults to
            False.
        overwrite (bool): Replace ``dst`` if it exists. Defaults to False.

    Returns:
        str: What was converted, in one line.

    Raises:
        FileNotFoundError: ``src`` does not exist.
        FileExistsError: ``dst`` exists and ``overwrite`` is False.
        KeyError: A name is unknown.
        ValueError: The file is no MobileMamba checkpoint of a published
            variant, or does not fit it; the message names the tensors.
    """
    if os.path.exists(dst) and not overwrite:
        raise FileExistsError(
            f'{dst} exists; choose another name or pass --overwrite.'
        )
    tensors = read_state_dict(src, container)
    if is_published(tensors) == reverse:
        raise ValueError(
            f'{src} holds {"published" if reverse else "no published"} '
            f'names; {"leave out" if reverse else "pass"} --reverse or give '
            'another file.'
        )
    dense = any(name.startswith('backbone.') for name in tensors)
    if reverse:
        arch = _check_backbone(tensors, src)
        # A classifier's backbone stands at the top level of its file.
        if any(name.startswith(_HEADS) for name in tensors):
            tensors = {
                name.removeprefix('backbone.'): value
                for name, value in tensors.items()
            }
        content = state_dict_to_published(tensors)
    else:
        ours = state_dict_from_published(tensors)
        if not dense:
            ours = {
                name if name.startswith(_HEADS) else f'backbone.{name}': value
                for name, value in ours.items()
            }
        arch = _check_backbone(ours, src)
        content = {
            'meta': {
                'arch': arch,
                'source': os.path.basename(os.fspath(src)),
                'mmmobilemamba_version': __version__,
            },
            'state_dict': ours,
        }
    with atomic_write(dst) as draft:
        torch.save(content, draft)
    kind = 'dense model' if dense and not reverse else 'checkpoint'
    return f'{src}: {kind} with a {arch} backbone, written to {dst}'


def _check_backbone(tensors: dict[str, Tensor], source) -> str:
    """Return the backbone's variant, or say what does not fit it."""
    # Imported here, because the backbone itself reads checkpoints.
    from ..models.backbones.arch import ARCH_SETTINGS
    from ..models.backbones.mobilemamba import MobileMamba

    backbone = backbone_tensors(tensors)
    widths = tuple(
        int(backbone[name].shape[0])
        if name in backbone and backbone[name].dim()
        else None
        for name in (
            'stem.3.conv.weight',
            'stages.1.downsample.project.conv.weight',
            'stages.2.downsample.project.conv.weight',
        )
    )
    known = {}
    for name, settings in ARCH_SETTINGS.items():
        known.setdefault(settings['channels'], name)
    if widths not in known:
        raise ValueError(
            f'{source} has stages of {widths} channels, which is no '
            'published variant; those are '
            + ', '.join(f'{name} {w}' for w, name in known.items())
            + '. A file in deploy form keeps its names and needs no '
            'conversion.'
        )
    with torch.device('meta'):
        model = MobileMamba(known[widths])
    problems = fit_report(model, backbone, str(source))
    if problems:
        raise ValueError(problems)
    return known[widths]

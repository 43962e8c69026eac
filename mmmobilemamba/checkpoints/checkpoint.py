"""Reading checkpoint files and fitting them to a backbone, or refusing."""

import os
from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from .key_map import is_published, state_dict_from_published

# Where a file keeps its tensors; the moving average gave the published
# accuracies, so it comes before the raw weights.
CONTAINERS = ('net_E', 'net', 'state_dict', 'model')

# How many names an error message lists of each kind.
_LISTED = 8


def read_state_dict(
    path: str | os.PathLike, container: str | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file by name.

    Args:
        path (str or PathLike): A file that torch.save wrote, published or
            ours, of which nothing but tensors and plain containers is
            unpickled, or a ``.safetensors`` file.
        container (str, optional): Where the file keeps them, one of
            ``net_E``, ``net``, ``state_dict`` and ``model``. Defaults to
            None, which takes the first that is there, then the top level.

    Returns:
        dict[str, Tensor]: Tensors on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, or holds no tensors there.
    """
    content = read_checkpoint(path)
    there = [n for n in CONTAINERS if isinstance(content.get(n), Mapping)]
    if container is not None and container not in there:
        raise ValueError(
            f'{path} has no {container!r}; it has '
            f'{", ".join(there) or "its tensors at the top level"}.'
        )
    if container or there:
        container = container or there[0]
    tensors = weights_of(content, container)
    if not tensors:
        raise ValueError(
            f'{path} holds no tensors at {container or "the top level"}; '
            'expected a state dict there or under one of '
            f'{", ".join(CONTAINERS)}.'
        )
    return tensors


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Read the whole content of a checkpoint.

    Args:
        path (str or PathLike): A file that torch.save wrote, of which nothing
            but tensors and plain containers is unpickled, a ``.safetensors``
            file, or an address that mmengine fetches.

    Returns:
        dict: Its content, tensors on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint.
    """
    path = os.fspath(path)
    check_checkpoint_file(path)
    if is_local(path):
        content = _load_file(os.path.expanduser(path))
    else:
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not isinstance(content, dict):
        raise ValueError(
            f'{path} holds a {type(content).__name__}, not a checkpoint.'
        )
    return content


def weights_of(
    content: Mapping, container: str | None = 'state_dict'
) -> dict[str, Tensor]:
    """Pick the tensors of a checkpoint's content.

    Args:
        content (Mapping): What :func:`read_checkpoint` gave.
        container (str, optional): Entry that holds them; the top level is
            taken where there is no such entry. Defaults to
            ``'state_dict'``, where mmengine looks.

    Returns:
        dict[str, Tensor]: Tensors by name; none where the file keeps them
        elsewhere.
    """
    tensors = content.get(container, content)
    if not isinstance(tensors, Mapping):
        return {}
    return {
        name.removeprefix('module.'): value
        for name, value in tensors.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


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
    if is_local(path) and not os.path.isfile(os.path.expanduser(path)):
        raise FileNotFoundError(f'Checkpoint {path} does not exist.')


def backbone_tensors(
    tensors: dict[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """Pick a backbone's tensors, by our names, from a state dict.

    Args:
        tensors (dict[str, Tensor]): State dict of a classifier, detector,
            segmentor or bare backbone, with published names or ours.
        prefix (str, optional): Prefix of the backbone's names. None finds
            ``backbone.`` by itself. Defaults to None.

    Returns:
        dict[str, Tensor]: Tensors by the names that the backbone has.
    """
    if prefix is None and any(k.startswith('backbone.') for k in tensors):
        prefix = 'backbone.'
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        tensors = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
    # Classification heads stand beside the backbone in published files.
    tensors = {
        name: value
        for name, value in tensors.items()
        if not name.startswith(('head.', 'head_dist.'))
    }
    return (
        state_dict_from_published(tensors)
        if is_published(tensors)
        else tensors
    )


def fit_report(
    module: nn.Module, tensors: dict[str, Tensor], source: str
) -> str:
    """Say what keeps tensors from filling a module exactly.

    Args:
        module (nn.Module): Module to fill.
        tensors (dict[str, Tensor]): Tensors by the module's names.
        source (str): Where they come from, for the message.

    Returns:
        str: Missing names, names left over, shapes that differ, and tensors
        of another kind or with NaN or infinity in them; empty where the
        tensors fit.
    """
    wanted = module.state_dict()
    # Counters of BatchNorm are absent from files of old torch versions.
    missing = [
        name
        for name in wanted
        if name not in tensors and not name.endswith('num_batches_tracked')
    ]
    extra = [name for name in tensors if name not in wanted]
    shapes = [
        f'{name} {tuple(tensors[name].shape)}, wanted {tuple(value.shape)}'
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    paired = [
        (name, tensors[name], value)
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape == value.shape
    ]
    kinds = [
        f'{name} {given.dtype}, wanted {value.dtype}'
        for name, given, value in paired
        if not _same_kind(given, value)
    ]
    broken = [
        name
        for name, given, value in paired
        if _same_kind(given, value) and not _is_finite(given)
    ]
    if not (missing or extra or shapes or kinds or broken):
        return ''
    return '\n'.join(
        [
            f'{source} does not fit {type(module).__name__}:',
            *_listing('missing', missing),
            *_listing('left over', extra),
            *_listing('of another shape', shapes),
            *_listing('of another type', kinds),
            *_listing('not finite', broken),
            *_hint(tensors, wanted),
        ]
    )


def load_backbone(
    backbone: nn.Module, path: str | os.PathLike, prefix: str | None = None
) -> None:
    """Fill a backbone from a checkpoint file, published or ours.

    Args:
        backbone (nn.Module): Backbone to fill.
        path (str or PathLike): Checkpoint file.
        prefix (str, optional): Prefix of the backbone's names; None finds
            it. Defaults to None.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not fit; the message names the tensors.
    """
    try:
        tensors = backbone_tensors(read_state_dict(path), prefix)
    except KeyError as error:
        raise ValueError(f'{path}: {error.args[0]}') from error
    problems = fit_report(backbone, tensors, os.fspath(path))
    if problems:
        raise ValueError(problems)
    # Not strict, because counters of BatchNorm may be absent.
    backbone.load_state_dict(tensors, strict=False)
    print_log(
        f'Loaded {len(tensors)} tensors of the backbone from {path}.',
        logger='current',
    )


def _load_file(path: str) -> object:
    """Read a checkpoint file: safetensors, or unpickled ``weights_only``."""
    if path.endswith('.safetensors'):
        return _load_safetensors(path)
    # Importing that module widens what torch reads, so not until it is due.
    from ..engine.safe_checkpoint import allow_mmengine_checkpoints

    allow_mmengine_checkpoints()
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        # Pickle and zip readers raise a dozen types for a damaged file.
        raise ValueError(
            f'{path} is no checkpoint that can be read safely: '
            f'{type(error).__name__}: {str(error).partition(chr(10))[0]}'
        ) from error


def _load_safetensors(path: str) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file as load
    except ImportError as error:
        raise ImportError(
            f'{path} needs safetensors: `pip install safetensors`.'
        ) from error
    try:
        return load(path)
    except SafetensorError as error:
        raise ValueError(f'{path} cannot be read: {error}') from error


def _same_kind(given: Tensor, wanted: Tensor) -> bool:
    """Tell whether one tensor can be copied to another and mean the same."""
    return (
        given.layout == wanted.layout
        and given.is_quantized == wanted.is_quantized
        and given.is_complex() == wanted.is_complex()
        and given.is_floating_point() == wanted.is_floating_point()
    )


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    return bool(tensor.isfinite().all())


def _listing(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ', '.join(names[:_LISTED])
    more = f' and {len(names) - _LISTED} more' if names[_LISTED:] else ''
    return [f'- {len(names)} {kind}: {shown}{more}']


def _hint(tensors: dict, wanted: dict) -> list[str]:
    if not set(tensors) & set(wanted):
        return ['No name matches: this is a checkpoint of another network.']
    fused = [name.endswith('.bn.weight') for name in tensors]
    ours = [name.endswith('.bn.weight') for name in wanted]
    if any(fused) != any(ours):
        return [
            'One side has its BatchNorm fused: build the backbone with '
            f'deploy={not any(fused)} to load this file.'
        ]
    return []

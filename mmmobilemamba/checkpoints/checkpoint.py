"""Reading checkpoint files safely, and filling modules from them."""

import os
import textwrap
from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from .key_map import is_published, state_dict_from_published
from .safe_loading import allow_mmengine_checkpoints

# Where a file keeps its tensors; the moving average gave the published
# accuracies, so it comes before the raw weights.
CONTAINERS = ('net_E', 'net', 'state_dict', 'model')
_CONVERTER = 'tools/model_converters/mobilemamba_to_mm.py'
# Characters of a line of torch's message that an error repeats.
_LINE = 400


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit."""


def check_checkpoint_file(path: str) -> None:
    """Raise FileNotFoundError for a local file that does not exist.

    Args:
        path (str): File, or an address such as ``https://`` or
            ``open-mmlab://``, which passes.
    """
    if '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise FileNotFoundError(f'Checkpoint {path} does not exist.')


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
        CheckpointError: It is no checkpoint.
    """
    path = os.fspath(path)
    check_checkpoint_file(path)
    allow_mmengine_checkpoints()
    if '://' in path:
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    else:
        content = _load_file(os.path.expanduser(path))
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a checkpoint.'
        )
    return content


def read_state_dict(
    path: str | os.PathLike, container: str | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file by name.

    Args:
        path (str or PathLike): File or address, published or ours.
        container (str, optional): Where the file keeps them, one of
            ``net_E``, ``net``, ``state_dict`` and ``model``. Defaults to
            None, which takes the first that is there, then the top level.

    Returns:
        dict[str, Tensor]: Tensors on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is no checkpoint, or holds no tensors there.
    """
    content = read_checkpoint(path)
    container = find_container(content, path, container)
    tensors = weights_of(content, container)
    if not tensors:
        raise CheckpointError(
            f'{path} holds no tensors at {container or "the top level"}; '
            'expected a state dict there or under one of '
            f'{", ".join(CONTAINERS)}.'
        )
    return tensors


def find_container(
    content: Mapping, source: str | os.PathLike, wanted: str | None = None
) -> str | None:
    """Return the entry that holds a file's tensors, None for its top level."""
    there = [n for n in CONTAINERS if isinstance(content.get(n), Mapping)]
    if wanted is not None and wanted not in there:
        raise CheckpointError(
            f'{source} has no {wanted!r}; it has '
            f'{", ".join(there) or "its tensors at the top level"}.'
        )
    return wanted or (there[0] if there else None)


def weights_of(
    content: Mapping, container: str | None = 'state_dict'
) -> dict[str, Tensor]:
    """Pick the tensors of a checkpoint's content.

    Args:
        content (Mapping): What :func:`read_checkpoint` gave.
        container (str, optional): Entry that holds them, the top level where
            there is none. Defaults to ``'state_dict'``, where mmengine looks.

    Returns:
        dict[str, Tensor]: Tensors by name; none where they are elsewhere.
    """
    tensors = content.get(container, content)
    if not isinstance(tensors, Mapping):
        return {}
    return {
        name.removeprefix('module.'): value
        for name, value in tensors.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def backbone_tensors(
    tensors: Mapping[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """Pick a backbone's tensors from the state dict of a whole model.

    Args:
        tensors (Mapping[str, Tensor]): State dict of a classifier, detector,
            segmentor or bare backbone, with published names or ours.
        prefix (str, optional): Prefix of the backbone's names. None finds
            ``backbone.`` by itself. Defaults to None.

    Returns:
        dict[str, Tensor]: Tensors of the backbone, without that prefix.
    """
    if prefix is None and any(k.startswith('backbone.') for k in tensors):
        prefix = 'backbone.'
    prefix = prefix.rstrip('.') + '.' if prefix else ''
    # Classification heads stand beside the backbone in published files.
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
        and not name.startswith(('head.', 'head_dist.'))
    }


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
        CheckpointError: The file does not fit; the message names the tensors.
    """
    tensors = backbone_tensors(read_state_dict(path), prefix)
    load_weights(backbone, tensors, path)
    print_log(f'Loaded {len(tensors)} backbone tensors of {path}.', 'current')


def load_checkpoint(
    model: nn.Module, path: str | os.PathLike, partial: bool = False
) -> dict:
    """Fill a model from a checkpoint, or say why it does not fit.

    mmengine loads with ``strict=False``: a foreign file leaves a network as it
    was initialised, and evaluates as noise.

    Args:
        model (nn.Module): Model, bare or wrapped as the Runner does.
        path (str or PathLike): File or address of mmengine's kind, with our
            names or published ones.
        partial (bool): Take what fits by name and shape, if anything does.
            Defaults to False.

    Returns:
        dict: Content of the file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It does not fit.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    content = read_checkpoint(path)
    tensors, wanted = weights_of(content), model.state_dict()
    named = state_dict_from_published if is_published(tensors) else dict
    fitting = {
        name: value
        for name, value in named(tensors).items()
        if name in wanted and wanted[name].shape == value.shape
    }
    if not fitting and (not tensors or is_published(tensors)):
        raise CheckpointError(
            f'{path} is no file of mmengine. If it is a published one, '
            f'convert it: python {_CONVERTER} {path} CONVERTED.pth'
        )
    if fitting and partial:
        model.load_state_dict(fitting, strict=False)
    else:
        load_weights(model, tensors, path)
    return content


def load_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike
) -> None:
    """Fill a module with all of its tensors and nothing else.

    Args:
        module (nn.Module): Module to fill.
        tensors (Mapping[str, Tensor]): Tensors by the module's names, or by
            published ones.
        source (str or PathLike): Where they come from, for the message.

    Raises:
        CheckpointError: Tensors are missing, left over, of another shape or
            kind, or hold NaN or infinity.
    """
    wanted = module.state_dict()
    try:
        if is_published(tensors):
            tensors = state_dict_from_published(tensors)
        wrong = [
            name
            for name, value in wanted.items()
            if name in tensors and not _is_weight(tensors[name], value)
        ]
        if wrong:
            raise ValueError(f'No finite, dense floats: {", ".join(wrong)}')
        # A plain dict: torch then adds BatchNorm's counters, which files of
        # old versions lack.
        module.load_state_dict(dict(tensors), strict=True)
    except (ValueError, RuntimeError) as error:
        lines = [f'{source} does not fit.', *str(error).splitlines()]
        lines = [textwrap.shorten(x, _LINE, placeholder=' ...') for x in lines]
        if not set(tensors) & set(wanted):
            lines.append('No name matches: this is of another network.')
        elif _is_fused(tensors) != _is_fused(wanted):
            lines.append(
                'One side has its BatchNorm fused: build the backbone with '
                f'deploy={_is_fused(tensors)} to load this file.'
            )
        raise CheckpointError('\n'.join(lines)) from error


def _load_file(path: str) -> object:
    """Read a checkpoint file: safetensors, or unpickled ``weights_only``."""
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location='cpu', weights_only=True)
    except ImportError as error:
        raise ImportError(
            f'{path} needs safetensors: `pip install safetensors`.'
        ) from error
    except Exception as error:
        # Pickle and zip readers raise a dozen types for a damaged file.
        raise CheckpointError(
            f'{path} is no checkpoint that can be read safely: '
            f'{type(error).__name__}: {str(error).partition(chr(10))[0]}'
        ) from error


def _is_weight(given: Tensor, wanted: Tensor) -> bool:
    """Tell what torch would copy in silence from what is a weight."""
    if not wanted.is_floating_point():
        return not given.is_complex() and given.layout == wanted.layout
    return (
        given.is_floating_point()
        and given.layout == wanted.layout
        # A huge one of another shape takes no memory until it is looked at.
        and (given.shape != wanted.shape or bool(given.isfinite().all()))
    )


def _is_fused(names: Mapping[str, Tensor]) -> bool:
    return not any(name.endswith('.bn.weight') for name in names)

"""Reading checkpoint files safely, and filling modules from them."""

import os
import textwrap
from collections.abc import Mapping

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from .key_map import state_dict_from_published
from .safe_loading import allow_mmengine_checkpoints

# Where a file keeps its tensors; the moving average gave the published
# accuracies, so it comes before the raw weights.
CONTAINERS = ('net_E', 'net', 'state_dict', 'model')
# Classification heads in published files.
HEADS = ('head.', 'head_dist.')


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit."""


def check_checkpoint_file(path: str) -> None:
    """Raise FileNotFoundError for a local file that does not exist.

    An address such as ``https://`` or ``open-mmlab://`` passes.
    """
    if '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise FileNotFoundError(f'Checkpoint {path} does not exist.')


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Read the whole content of a checkpoint, tensors on the CPU.

    Args:
        path (str or PathLike): A file that torch.save wrote, of which nothing
            but tensors and plain containers is unpickled, a ``.safetensors``
            file, or an address that mmengine fetches.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is no checkpoint.
    """
    path = os.fspath(path)
    check_checkpoint_file(path)
    allow_mmengine_checkpoints()
    local = os.path.expanduser(path)
    try:
        if '://' in path:
            content = CheckpointLoader.load_checkpoint(path, 'cpu')
        elif path.endswith('.safetensors'):
            from safetensors.torch import load_file

            content = load_file(local)
        else:
            content = torch.load(local, map_location='cpu', weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f'a {type(content).__name__} in place of a dict')
    except Exception as error:
        # Pickle and zip readers raise a dozen types for a damaged file.
        raise CheckpointError(
            f'{path} is no checkpoint that can be read safely: '
            f'{type(error).__name__}: {str(error).partition(chr(10))[0]}'
        ) from error
    return content


def find_tensors(content: Mapping) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a checkpoint by name, and the entry they are in.

    It is the first of ``CONTAINERS`` that is there, or the top level.
    """
    there = (n for n in CONTAINERS if isinstance(content.get(n), Mapping))
    place = next(there, 'top level')
    tensors = {
        name.removeprefix('module.'): value
        for name, value in content.get(place, content).items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    return tensors, place


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a file, by name, as :func:`read_checkpoint` does."""
    return find_tensors(read_checkpoint(path))[0]


def backbone_tensors(
    tensors: Mapping[str, Tensor],
    prefix: str | None = None,
    heads: bool = False,
) -> dict[str, Tensor]:
    """Pick a backbone's tensors from the state dict of a whole model.

    Args:
        tensors (Mapping[str, Tensor]): State dict of any model or of a bare
            backbone, with published names or ours.
        prefix (str, optional): What the backbone's names begin with, once or
            several times, to be taken off. Defaults to ``backbone.``
        heads (bool): Keep classification heads, which stand beside the
            backbone in published files. Defaults to False.
    """
    prefix = (prefix or 'backbone').rstrip('.') + '.'
    while any(name.startswith(prefix) for name in tensors):
        tensors = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
    out = () if heads else HEADS
    return {k: v for k, v in tensors.items() if not k.startswith(out)}


def load_checkpoint(
    model: nn.Module, path: str | os.PathLike, partial: bool = False
) -> dict:
    """Fill a model as :func:`load_weights` does; return the file's content."""
    content = read_checkpoint(path)
    load_weights(model, find_tensors(content)[0], path, partial)
    return content


def load_weights(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str | os.PathLike,
    partial: bool = False,
) -> None:
    """Fill a module with all of its tensors and nothing else.

    mmengine loads with ``strict=False``: a foreign file leaves a network as it
    was initialised, and evaluates as noise.

    Args:
        module (nn.Module): Module to fill, bare or as the Runner wraps it.
        tensors (Mapping[str, Tensor]): Tensors by the module's names, or by
            published ones.
        source (str or PathLike): Where they come from, for the message.
        partial (bool): Take what fits by name and shape, if anything does.
            Defaults to False.

    Raises:
        CheckpointError: Tensors are missing, left over, of another shape or
            kind, or hold NaN or infinity.
    """
    while is_model_wrapper(module) or isinstance(module, BaseTTAModel):
        module = module.module
    wanted = module.state_dict()
    try:
        # A plain dict: torch then adds BatchNorm's counters, which files of
        # old versions lack.
        tensors = dict(tensors)
        # SHViT's own names look like published ones of MobileMamba.
        if not tensors.keys() & wanted.keys():
            tensors = state_dict_from_published(tensors)
        fitting = {
            name: value
            for name, value in tensors.items()
            if name in wanted and wanted[name].shape == value.shape
        }
        wrong = [x for x in fitting if not _is_weight(fitting[x], wanted[x])]
        if wrong:
            raise ValueError(f'No finite, dense floats: {", ".join(wrong)}')
        if partial and fitting:
            module.load_state_dict(fitting, strict=False)
        else:
            module.load_state_dict(tensors, strict=True)
    except (ValueError, RuntimeError) as error:
        lines = [f'{source} does not fit.', *str(error).splitlines()]
        if not tensors.keys() & wanted.keys():
            lines.append(
                'No name matches: it is of another network, or published, for '
                'tools/model_converters/mobilemamba_to_mm.py to convert.'
            )
        lines = [textwrap.shorten(x, 400, placeholder=' ...') for x in lines]
        raise CheckpointError('\n'.join(lines)) from error


def _is_weight(given: Tensor, wanted: Tensor) -> bool:
    """Tell what torch would copy in silence from what is a weight."""
    if given.layout != wanted.layout or given.is_complex():
        return False
    if wanted.is_floating_point():
        return given.is_floating_point() and bool(given.isfinite().all())
    return True

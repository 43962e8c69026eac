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
# Characters of a line of torch's message that an error repeats.
_LINE = 400


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit."""


def check_checkpoint_file(path: str) -> None:
    """Raise FileNotFoundError for a local file that does not exist.

    An address such as ``https://`` or ``open-mmlab://`` passes.
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
        load, options = torch.load, dict(map_location='cpu', weights_only=True)
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file

            load, options = load_file, {}
        try:
            content = load(os.path.expanduser(path), **options)
        except Exception as error:
            # Pickle and zip readers raise a dozen types for a damaged file.
            raise CheckpointError(
                f'{path} is no checkpoint that can be read safely: '
                f'{type(error).__name__}: {str(error).partition(chr(10))[0]}'
            ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a checkpoint.'
        )
    return content


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file, published or ours, by name.

    Arguments and errors are those of :func:`read_checkpoint`; of several sets
    of weights the first by the order of ``CONTAINERS`` is taken.
    """
    content = read_checkpoint(path)
    return weights_of(content, find_container(content))


def find_container(content: Mapping) -> str | None:
    """Return the entry that holds a file's tensors, None for its top level."""
    there = (n for n in CONTAINERS if isinstance(content.get(n), Mapping))
    return next(there, None)


def weights_of(
    content: Mapping, container: str | None = 'state_dict'
) -> dict[str, Tensor]:
    """Pick the tensors of a checkpoint's content by name.

    They are those of ``container`` (by default where mmengine looks), at the
    top level where there is none, and none where they are elsewhere.
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
    tensors: Mapping[str, Tensor],
    prefix: str | None = None,
    heads: bool = False,
) -> dict[str, Tensor]:
    """Pick a backbone's tensors from the state dict of a whole model.

    Args:
        tensors (Mapping[str, Tensor]): State dict of a classifier, detector,
            segmentor or bare backbone, with published names or ours.
        prefix (str, optional): Prefix of the backbone's names. None takes
            off ``backbone.`` as often as it is there. Defaults to None.
        heads (bool): Keep classification heads, which stand beside the
            backbone in published files. Defaults to False.

    Returns:
        dict[str, Tensor]: Tensors of the backbone, without the prefix.
    """
    while prefix or any(name.startswith('backbone.') for name in tensors):
        start = (prefix or 'backbone').rstrip('.') + '.'
        tensors = {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }
        prefix = None
    return {
        name: value
        for name, value in tensors.items()
        if heads or not name.startswith(HEADS)
    }


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
    fitting = {
        name: value
        for name, value in state_dict_from_published(tensors).items()
        if name in wanted and wanted[name].shape == value.shape
    }
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
        # A plain dict: torch then adds BatchNorm's counters, which files of
        # old versions lack.
        tensors = state_dict_from_published(tensors)
        wrong = [
            name
            for name, value in wanted.items()
            if name in tensors and not _is_weight(tensors[name], value)
        ]
        if wrong:
            raise ValueError(f'No finite, dense floats: {", ".join(wrong)}')
        module.load_state_dict(tensors, strict=True)
    except (ValueError, RuntimeError) as error:
        lines = [f'{source} does not fit.', *str(error).splitlines()]
        if not set(tensors) & set(wanted):
            lines.append(
                'No name matches: this is of another network, or a published '
                'file that tools/model_converters/mobilemamba_to_mm.py has to '
                'convert first.'
            )
        lines = [textwrap.shorten(x, _LINE, placeholder=' ...') for x in lines]
        raise CheckpointError('\n'.join(lines)) from error


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

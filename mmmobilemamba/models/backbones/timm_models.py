"""What timm's networks are called, and what their files call their tensors."""

import difflib
import sys
from collections.abc import Collection, Iterable, Iterator
from types import ModuleType

import torch
from torch import Tensor, nn

# Names under which a wrapper holds a whole network.
_HOLDERS = ('timm_model', 'model', 'body')


def import_timm() -> ModuleType:
    """Import timm where it is needed, and not before.

    Returns:
        ModuleType: timm.

    Raises:
        ImportError: timm is not installed; the message says how to get it.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f'A network of timm needs timm: `pip install timm` ({error}).'
        ) from error
    return timm


def check_timm_name(name: str) -> None:
    """Check that timm has a network of this name.

    Args:
        name (str): Name for ``timm.create_model``, with or without the tag of
            its weights.

    Raises:
        TypeError: The name is no string.
        ValueError: There is none; the message names similar ones.
    """
    if not isinstance(name, str):
        raise TypeError(f'model_name must be a str, got {name!r}.')
    timm = import_timm()
    if timm.is_model(name):
        return
    plain = name.partition('.')[0].lower().replace('-', '_')
    known = timm.list_models()
    near = difflib.get_close_matches(plain, known, n=5, cutoff=0.6)
    near += [n for n in known if plain and plain in n and n not in near][:5]
    hint = f' Did you mean {", ".join(near[:6])}?' if near else ''
    raise ValueError(
        f'model_name={name!r} is no network of timm {timm.__version__}.{hint}'
    )


def timm_name(name: str, known: Collection[str]) -> str:
    """Give a tensor or module the name that it has in the whole network.

    ``features_only`` networks hold the whole network's modules under names of
    their own: ``stages_0`` for ``stages.0``, or all of them in ``model``.

    Args:
        name (str): Name in a ``features_only`` network, or any other.
        known (Collection[str]): Names of the whole network.

    Returns:
        str: The name in ``known``, or ``name`` itself where none fits.
    """
    return next((n for n in _candidates(name) if n in known), name)


def inner_tensors(
    tensors: dict[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """Pick a backbone's tensors from the file of a whole model.

    Args:
        tensors (dict[str, Tensor]): Tensors of a file.
        prefix (str, optional): Prefix of the backbone's names. None takes off
            ``backbone.`` as often as it is there. Defaults to None.

    Returns:
        dict[str, Tensor]: The backbone's tensors, or all of them.
    """
    while prefix or any(name.startswith('backbone.') for name in tensors):
        start = (prefix or 'backbone').rstrip('.') + '.'
        tensors = {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }
        prefix = None
    return tensors


def fitting_tensors(
    features: nn.Module,
    whole: nn.Module,
    tensors: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename the tensors of a file to those of a ``features_only`` network.

    Args:
        features (nn.Module): Network to fill.
        whole (nn.Module): timm's whole network of the same name.
        tensors (dict[str, Tensor]): Tensors of a file: timm's own, a network
            of ours, or one by the authors' names where timm knows them.

    Returns:
        dict[str, Tensor]: What the network takes, by its names, without the
        classifier and stages that it does not have; what belongs to neither
        network keeps its name.
    """
    known = whole.state_dict().keys()
    named = {timm_name(name, known): value for name, value in tensors.items()}
    own = {timm_name(name, known): name for name in features.state_dict()}
    if not own.keys() & named.keys():
        named = _converted(whole, tensors)
    return {
        own.get(name, name): value
        for name, value in named.items()
        if name in own or name not in known
    }


def unread_parameters(backbone: nn.Module, shape: tuple[int, ...]) -> set[str]:
    """Find the parameters that do not reach any map of a backbone.

    Only shapes are computed, so that it takes a moment.

    Args:
        backbone (nn.Module): Module that gives a tuple of maps and knows
            their ``out_channels``.
        shape (tuple[int]): Shape of a picture that it takes.

    Returns:
        set[str]: Names of parameters that never get a gradient.

    Raises:
        ValueError: The maps have other channels than the backbone says.
    """
    state, maps = _shapes_through(backbone, shape)
    channels = [m.shape[1] for m in maps]
    if channels != backbone.out_channels:
        raise ValueError(
            f'The maps have {channels} channels where timm announces '
            f'{backbone.out_channels}; this network cannot be a backbone.'
        )
    reached = _leaves(maps)
    return {name for name, p in state.items() if id(p) not in reached}


def runs_at(backbone: nn.Module, shape: tuple[int, ...]) -> bool:
    """Tell whether a backbone takes pictures of a shape.

    Args:
        backbone (nn.Module): Any module.
        shape (tuple[int]): Shape of a batch.

    Returns:
        bool: Whether shapes go through.
    """
    try:
        _shapes_through(backbone, shape)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _shapes_through(
    backbone: nn.Module, shape: tuple[int, ...]
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Return shape-only parameters and the outputs that they lead to."""
    state = {
        name: tensor.detach().to('meta').requires_grad_()
        for name, tensor in backbone.named_parameters()
    }
    buffers = {
        name: tensor.to('meta') for name, tensor in backbone.named_buffers()
    }
    training = {module: module.training for module in backbone.modules()}
    nn.Module.train(backbone, False)
    try:
        with torch.enable_grad():
            outputs = torch.func.functional_call(
                backbone,
                {**state, **buffers},
                (torch.empty(shape, device='meta'),),
            )
    finally:
        for module, mode in training.items():
            module.training = mode
    return state, outputs


def _leaves(outputs: Iterable[Tensor]) -> set[int]:
    """Return the ids of all tensors that outputs were computed from."""
    leaves, seen = set(), set()
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, 'variable'):
            leaves.add(id(node.variable))
        waiting += [before for before, _ in node.next_functions]
    return leaves


def _converted(whole: nn.Module, tensors: dict) -> dict[str, Tensor]:
    """Let timm's module for a network translate the authors' names."""
    module = sys.modules[type(whole).__module__]
    convert = getattr(module, 'checkpoint_filter_fn', None)
    if convert is None:
        return tensors
    try:
        return dict(convert(dict(tensors), whole))
    except (KeyError, ValueError, RuntimeError, AttributeError):
        # It was written for that network's files only, and this is none.
        return tensors


def _candidates(name: str) -> Iterator[str]:
    yield name
    top, dot, rest = name.partition('.')
    if top in _HOLDERS and rest:
        yield from _candidates(rest)
    for index in range(len(top) - 1, 0, -1):
        if top[index] == '_':
            yield f'{top[:index]}.{top[index + 1 :]}{dot}{rest}'

"""Folding BatchNorm into convolutions, in any network."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def calibrate_norms(module: nn.Module, forward: Callable[[], object]) -> None:
    """Give every BatchNorm the statistics of one forward pass.

    A network that was only initialised lets its values grow or vanish with
    depth. This gives them a trained network's scale.

    Args:
        module (nn.Module): Network, in evaluation mode.
        forward (Callable): Runs it on a batch.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        forward()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


@torch.no_grad()
def fold_norms(module: nn.Module, forward: Callable[[], object]) -> int:
    """Fold every BatchNorm that alone reads a convolution into it.

    Which norm reads which convolution is seen in a forward pass, so that no
    rule about names or order is needed. Convolutions or norms that run more
    than once, or whose result another layer reads too, stay as they are.

    Args:
        module (nn.Module): Network in evaluation mode, changed in place.
        forward (Callable): Runs it; its result has to stay the same.

    Returns:
        int: Number of norms folded.

    Raises:
        ValueError: The result changed; the module is of no use any more.
    """
    before = [tensor.clone() for tensor in iter_tensors(forward())]
    pairs = _find_pairs(module, forward)
    for conv, norm in pairs:
        _fold(conv, norm)
    _replace(module, {norm: _what_follows(norm) for _, norm in pairs})
    after = list(iter_tensors(forward()))
    for old, new in zip(before, after, strict=True):
        if not torch.allclose(
            old, new, rtol=1e-3, atol=1e-3 * float(old.abs().max())
        ):
            raise ValueError(
                f'{type(module).__name__} computes something else with its '
                'BatchNorm folded into its convolutions; time it as trained.'
            )
    return len(pairs)


def iter_tensors(value: object) -> Iterator[Tensor]:
    """Walk through the floating tensors of a network's output.

    Args:
        value (object): Tensors or arrays in lists, tuples, dicts and data
            samples.

    Yields:
        Tensor: One after the other.
    """
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from iter_tensors(item)
    elif callable(getattr(value, 'values', None)):  # dict or data element
        for item in value.values():
            yield from iter_tensors(item)


def _find_pairs(module, forward) -> list[tuple[nn.Module, _BatchNorm]]:
    """Run the network and note which norm reads which convolution."""
    makers: dict[int, nn.Module] = {}
    readers: Counter[int] = Counter()
    calls: Counter[nn.Module] = Counter()
    kept = []  # so that no two tensors have one id
    pairs = []

    def before_layer(layer, args):
        calls[layer] += 1
        kept.extend(args)
        for arg in args:
            readers[id(arg)] += 1
        if isinstance(layer, _BatchNorm) and id(args[0]) in makers:
            pairs.append((makers[id(args[0])], id(args[0]), layer))

    def after_conv(conv, args, output):
        kept.append(output)
        makers[id(output)] = conv

    handles = []
    for layer in module.modules():
        is_norm = isinstance(layer, _BatchNorm)
        # A norm may hold its activation; other containers hand on inputs.
        if is_norm or not any(layer.children()):
            handles.append(layer.register_forward_pre_hook(before_layer))
        if isinstance(layer, _CONVS):
            handles.append(layer.register_forward_hook(after_conv))
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return [
        (conv, norm)
        for conv, output, norm in pairs
        if calls[conv] == calls[norm] == readers[output] == 1
    ]


def _fold(conv: nn.Module, norm: _BatchNorm) -> None:
    bias = None if conv.bias is None else conv.bias.double()
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        bias,
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        None if norm.weight is None else norm.weight.double(),
        None if norm.bias is None else norm.bias.double(),
    )
    conv.weight.copy_(weight)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype))


def _what_follows(norm: _BatchNorm) -> nn.Module:
    """Return what a norm does beyond normalising, as timm's activate."""
    parts = [getattr(norm, name, None) for name in ('drop', 'act')]
    parts = [
        part
        for part in parts
        if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)
    ]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _replace(module: nn.Module, by: dict[nn.Module, nn.Module]) -> None:
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if child in by:
                setattr(parent, name, by[child])

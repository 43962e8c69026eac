"""Mixed precision without CUDA."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.optim import OptimWrapper
from mmengine.utils import apply_to
from torch import Tensor, nn

from mmmobilemamba.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Train under bfloat16 autocast on the CPU.

    mmengine's ``AmpOptimWrapper`` asserts CUDA. bfloat16 has the range of
    float32, so there is no loss scaling, and a checkpoint can be resumed with
    or without mixed precision. mmcv's CPU operators know no bfloat16: its
    layers compute in float32, and heads return float32, which their
    non-maximum suppression reads.

    Args:
        dtype (str or torch.dtype): As ``AmpOptimWrapper`` takes it; bfloat16
            is the only one. Defaults to ``'bfloat16'``.
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    def __init__(
        self, dtype: str | torch.dtype = 'bfloat16', **kwargs
    ) -> None:
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(f'On a CPU dtype must be bfloat16, got {dtype}.')
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass, besides what the base class does."""
        with (
            super().optim_context(model),
            _float32_islands(model),
            torch.autocast('cpu', dtype=torch.bfloat16),
        ):
            yield


@contextmanager
def _float32_islands(model: nn.Module) -> Iterator[None]:
    """Replace the forward functions that cannot do with bfloat16."""
    replaced = {}
    for module in model.modules():
        operator = type(module).__module__.startswith('mmcv.ops')
        if operator or hasattr(module, 'predict_by_feat'):
            replaced[module] = module.__dict__.get('forward')
            forward = _compute_float32 if operator else _return_float32
            module.forward = partial(forward, module.forward)
    try:
        yield
    finally:
        for module, own in replaced.items():
            del module.forward
            if own is not None:
                module.forward = own


def _compute_float32(forward: Callable, feat: Tensor, *args, **kwargs):
    args, kwargs = _to(torch.float32, ((feat, *args), kwargs))
    with torch.autocast('cpu', enabled=False):
        return _to(feat.dtype, forward(*args, **kwargs))


def _return_float32(forward: Callable, *args, **kwargs):
    return _to(torch.float32, forward(*args, **kwargs))


def _to(dtype: torch.dtype, value):
    """Cast the floating tensors of nested lists, tuples and dicts."""
    return apply_to(
        value,
        lambda x: isinstance(x, Tensor) and x.is_floating_point(),
        lambda x: x.to(dtype),
    )

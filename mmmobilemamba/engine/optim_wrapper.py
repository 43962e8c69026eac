"""Mixed precision without CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmmobilemamba.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Train under bfloat16 autocast on the CPU.

    mmengine's ``AmpOptimWrapper`` asserts CUDA. bfloat16 has the range of
    float32, so there is no loss scaling, and a checkpoint can be resumed with
    or without mixed precision.

    Args:
        dtype (str): Type to compute in; ``'bfloat16'`` is the only one that
            CPU training is stable in. Defaults to ``'bfloat16'``.
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: ``dtype`` is another one.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs) -> None:
        if dtype != 'bfloat16':
            raise ValueError(
                "CPUAmpOptimWrapper takes dtype='bfloat16' only, "
                f'got {dtype!r}.'
            )
        super().__init__(**kwargs)
        self.cast_dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass, besides what the base class does.

        Args:
            model (nn.Module): Model in training.
        """
        with (
            super().optim_context(model),
            torch.autocast('cpu', dtype=self.cast_dtype),
        ):
            yield

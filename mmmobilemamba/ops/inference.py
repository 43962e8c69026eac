"""When the kernels that only infer may run, and what they keep packed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .export import is_exporting


def infers_on_cpu(x: Tensor) -> bool:
    """Return whether ``x`` may go through kernels that only infer on CPUs.

    They know float32 and no gradients. Tracing, exporting, compiling and
    counting with fake tensors have to see PyTorch's own operators.

    Args:
        x (Tensor): Input of a layer.

    Returns:
        bool: True for a plain float32 tensor on the CPU, without gradients,
        where oneDNN is at hand.
    """
    # First, as a compiler stops at the questions below.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if is_exporting():
        return False
    return (
        type(x) is Tensor
        and x.device.type == 'cpu'
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
    )


class PackCache:
    """Weights in a kernel's own layout, made again where they change.

    A copy or a pickle of the module that holds it starts empty: a layout may
    belong to this processor, and oneDNN's tensors cannot be stored.
    """

    def __init__(self):
        self._values: dict[str, tuple] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

    def __deepcopy__(self, memo) -> 'PackCache':
        return PackCache()

    def __reduce__(self):
        return (PackCache, ())

    def get(
        self,
        name: str,
        make: Callable,
        *weights: Tensor | None,
        shape: tuple | None = None,
    ) -> Tensor | tuple:
        """Return what ``make`` made of these weights.

        Args:
            name (str): What is kept.
            make (Callable): Takes the weights.
            *weights (Tensor, optional): The weights; None passes through.
            shape (tuple, optional): Shape of the input, where the layout
                depends on it. Defaults to None.

        Returns:
            Tensor | tuple: The result of ``make``.
        """
        if torch.compiler.is_compiling():
            # The compiler computes once what depends on constants alone.
            return make(*weights)
        key = (
            shape,
            tuple(
                (w.data_ptr(), 0 if w.is_inference() else w._version)
                for w in weights
                if w is not None
            ),
        )
        kept = self._values.get(name)
        if kept is None or kept[0] != key:
            kept = (key, make(*weights))
            self._values[name] = kept
        return kept[1]


class PacksWeights:
    """Mixin of modules with a :class:`PackCache` named ``_packs``.

    Attributes:
        weights_are_constant (bool): Whether code that torch.compile makes
            may hold weights in a kernel's own layout;
            :func:`hold_weights_constant` sets it.
    """

    weights_are_constant = False

    def infers_on_cpu(self, x: Tensor) -> bool:
        """Return whether ``x`` may go through kernels that only infer.

        Args:
            x (Tensor): Input of the layer.

        Returns:
            bool: As of :func:`infers_on_cpu`; also True in code that is
            compiled with constant weights.
        """
        if self.weights_are_constant and torch.compiler.is_compiling():
            return (
                x.device.type == 'cpu'
                and x.dtype == torch.float32
                and not torch.is_grad_enabled()
            )
        return infers_on_cpu(x)

    def train(self, mode: bool = True):
        """Set the mode, and pack the weights anew in the next inference.

        Weights may be exchanged through their ``data``, which leaves no
        trace; moving averages are put in place for an evaluation that way.

        Args:
            mode (bool): Training or evaluation. Defaults to True.

        Returns:
            nn.Module: The module.
        """
        self._packs.clear()
        return super().train(mode)


def hold_weights_constant(module: nn.Module) -> None:
    """Let compiled code take the kernels that infer with packed weights.

    To be called before ``module.compile`` with ``freezing``, which computes
    the packed weights once; without it they would be packed at every call.

    Args:
        module (nn.Module): Network; one without layers of ours stays as it
            is.
    """
    for part in module.modules():
        if isinstance(part, PacksWeights):
            part.weights_are_constant = True

"""The norm and the gate behind a scan."""

import torch.nn.functional as F
from torch import Tensor

from .scan import extension_for
from .scan_pytorch import state_dtype


def gated_layer_norm(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    backend: str | None = None,
) -> Tensor:
    """Normalise tokens over their channels and gate them.

    Args:
        x (Tensor): Tokens (batch, channels, length), floating, contiguous or
            channels-last.
        z (Tensor): Gates before their activation, SiLU, as ``x``; a slice of
            channels will do.
        weight (Tensor): Weight of the norm, (channels,).
        bias (Tensor): Bias of the norm, (channels,).
        eps (float): Added to the variance. Defaults to 1e-5.
        backend (str, optional): Backend name; None takes
            :func:`mmmobilemamba.ops.scan_backend`. Defaults to None.

    Returns:
        Tensor: ``layer_norm(x) * silu(z)``, of the shape and dtype of ``x``.
    """
    extension = extension_for(x, backend)
    if extension is not None:
        return extension.gated_layer_norm(x, z, weight, bias, eps)
    dtype = state_dtype(x.dtype)
    y = F.layer_norm(
        x.transpose(1, 2).to(dtype),
        weight.shape,
        weight.to(dtype),
        bias.to(dtype),
        eps,
    )
    return (y.transpose(1, 2) * F.silu(z.to(dtype))).to(x.dtype)

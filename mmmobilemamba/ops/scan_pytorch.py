"""The scan of the network, and the gated norm behind it.

In plain PyTorch, two neighbouring steps of ``h_t = a_t h_(t-1) + b_t`` become
one of the same form, until few are left.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scan import extension_for

FEW_TOKENS = 16  # for which a loop is faster on a CPU
# Levels of merged steps in a graph of free size, and the tokens it holds for.
MAX_LEVELS = 15
MAX_TOKENS = 2**MAX_LEVELS
size_is_free = False


@contextmanager
def export_form(free_size: bool = False) -> Iterator[None]:
    """Say whether a graph traced within has to hold for maps of every size."""
    global size_is_free
    before, size_is_free = size_is_free, free_size
    try:
        yield
    finally:
        size_is_free = before


def _shift(x: Tensor, forward: bool) -> Tensor:
    """Move ``x`` by one along dimension 1; a zero enters at the free end."""
    empty = torch.zeros_like(x[:, :1])
    return torch.cat((empty, x[:, :-1]) if forward else (x[:, 1:], empty), 1)


def _solve(
    a: Tensor, b: Tensor, reverse: bool, levels: int = MAX_LEVELS
) -> Tensor:
    # A graph of free size is traced once, and no branch may depend on it.
    length = a.shape[1]
    if size_is_free and not levels:
        return b
    if not size_is_free and length <= FEW_TOKENS:
        return recurrence_loop(a, b, reverse)
    even = a[:, ::2], b[:, ::2]
    if size_is_free or length % 2:
        a, b = (F.pad(x, (0, 0, 0, 1)) for x in (a, b))
    odd = a[:, 1::2], b[:, 1::2]
    order = -1 if reverse else 1
    (a0, b0), (a1, b1) = (even, odd)[::order]
    # Every second state is reached from the one before it in one step.
    second = _solve(a0 * a1, torch.addcmul(b1, a1, b0), reverse, levels - 1)
    first = torch.addcmul(b0, a0, _shift(second, forward=not reverse))
    h = torch.stack((first, second)[::order], dim=2).flatten(1, 2)
    return h[:, :length] if size_is_free or length % 2 else h


class _LinearRecurrence(torch.autograd.Function):
    """Recurrence whose backward is one the other way; keeps only a and h."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, reverse: bool):
        h = _solve(a, b, reverse)
        ctx.save_for_backward(a, h)
        ctx.reverse = reverse
        return h

    @staticmethod
    def backward(ctx, grad: Tensor):
        (a, h), back = ctx.saved_tensors, not ctx.reverse
        # The gradient of h_t reaches h_(t-1) through a_t.
        db = linear_recurrence(_shift(a, forward=not back), grad, back)
        return db * _shift(h, forward=back), db, None


def linear_recurrence(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    """Solve ``h_t = a_t h_(t-1) + b_t``, (batch, length, channels), by merging
    steps; with ``reverse`` from the last token to the first."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _LinearRecurrence.apply(a, b, reverse)
    return _solve(a, b, reverse)


def recurrence_loop(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    """Solve the same token by token."""
    order = -1 if reverse else 1
    h, states = torch.zeros_like(b[:, :1]), []
    for a_t, b_t in list(zip(a.split(1, 1), b.split(1, 1)))[::order]:
        h = torch.addcmul(b_t, a_t, h)
        states.append(h)
    return torch.cat(states[::order], dim=1)


def bidirectional_scan(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    backend: str,
) -> Tensor:
    """Scan the tokens forwards and backwards and sum both results.

    ``h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t``, ``y_t = C_t h_t + D
    u_t``, ``delta = softplus(dt_proj dt + dt_bias)``.

    Args:
        u (Tensor): Input, (batch, inner, length), floating, contiguous or
            channels-last (stride 1 along ``inner``).
        proj (Tensor): Rows dt, B, C of each direction, (batch, directions,
            rank + 2 * state, length); direction 1 runs backwards.
        dt_proj (Tensor): Weights of dt, (directions, inner, rank).
        dt_bias, D (Tensor): Bias of dt, skip weights, (directions, inner).
        A (Tensor): Decay, (directions, inner, state), negative in use.
        backend (str): As :func:`mmmobilemamba.ops.scan_backend` names it.

    Returns:
        Tensor: Sum of the directions, of the shape and dtype of ``u``; the
        state is float32, or float64 for a float64 ``u``.

    Source: Mamba (arXiv:2312.00752), equation 2, with a simplified B; section
    3.3 of MobileMamba (arXiv:2411.15941).
    """
    if extension := extension_for(u, backend):
        return extension.bidirectional_scan(u, proj, dt_proj, dt_bias, A, D)
    solve = recurrence_loop if backend == 'reference' else linear_recurrence
    dtype = torch.promote_types(u.dtype, torch.float32)
    dt_proj, dt_bias, A, D = (p.to(dtype) for p in (dt_proj, dt_bias, A, D))
    rank, state = dt_proj.shape[2], A.shape[2]
    x = u.to(dtype).transpose(1, 2)  # (batch, length, inner)
    rows = proj.to(dtype).transpose(2, 3)
    y = x * D.sum(0)
    for k in range(proj.shape[1]):
        dt, *BC = rows[:, k].split([rank, *[1] * (2 * state)], dim=2)
        delta = F.softplus(F.linear(dt, dt_proj[k], dt_bias[k]))
        for n in range(state):  # they know nothing of each other
            decay = torch.exp(delta * A[k, :, n])
            h = solve(decay, delta * x * BC[n], k == 1)
            y = torch.addcmul(y, h, BC[state + n])
    return y.to(u.dtype).transpose(1, 2)


def gated_layer_norm(
    x: Tensor, z: Tensor, norm: nn.LayerNorm, backend: str
) -> Tensor:
    """Compute ``norm(x) * silu(z)``, the norm over channels.

    Tokens ``x`` and gates ``z`` are (batch, channels, length), contiguous,
    channels-last or slices of channels; the result has the dtype of ``x``.
    """
    weight, bias, eps = norm.weight, norm.bias, norm.eps
    if extension := extension_for(x, backend):
        return extension.gated_layer_norm(x, z, weight, bias, eps)
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = weight.to(dtype), bias.to(dtype)
    y = x.transpose(1, 2).to(dtype)
    y = F.layer_norm(y, weight.shape, weight, bias, eps).transpose(1, 2)
    return (y * F.silu(z.to(dtype))).to(x.dtype)

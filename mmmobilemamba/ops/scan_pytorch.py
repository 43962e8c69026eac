"""The scan in plain PyTorch: a loop as reference, and chunks of tokens.

The recurrence ``h_t = a_t h_(t-1) + b_t`` is associative, so the tokens are
cut into chunks of about ``CHUNK``: all are scanned at once, one step per
position inside the chunk, the chunks' last states are scanned by the same
function, and the state that enters each chunk is added back. A sequence of
length L takes ``CHUNK * log(L) / log(CHUNK)`` steps on whole tensors and about
three multiply-adds per element. Tensors are token-major, (batch, length,
channels), so that every step reads whole rows; a channels_last feature map
already is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .export import size_is_free

# 8 was the fastest of 4, 8, 16 and 32 on CPU for lengths 16 to 4200.
CHUNK = 8
# Levels of chunks in a graph of free size, and the tokens it holds for.
MAX_LEVELS = 5
MAX_TOKENS = CHUNK**MAX_LEVELS


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which the state is kept for an input's."""
    # Without torch.promote_types, which counts as an operator.
    return dtype if dtype == torch.float64 else torch.float32


def bidirectional_scan_loop(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
) -> Tensor:
    """Run both directions token by token: slow, exact, the measure.

    ``h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t``, ``y_t = C_t h_t + D
    u_t``. See :func:`mmmobilemamba.ops.bidirectional_scan` for the arguments.

    Source: Mamba (arXiv:2312.00752), equation 2 with the simplified
    discretisation of B; MobileMamba (arXiv:2411.15941), section 3.3.
    """
    dtype = state_dtype(u.dtype)
    x, rows, dt_proj, dt_bias, A, D = (
        value.to(dtype) for value in (u, proj, dt_proj, dt_bias, A, D)
    )
    length, rank, state = u.shape[2], dt_proj.shape[2], A.shape[2]
    out = x * D.sum(0)[:, None]
    for k in range(rows.shape[1]):
        dt, B, C = rows[:, k].split([rank, state, state], dim=1)
        delta = F.softplus(dt_proj[k] @ dt + dt_bias[k][:, None])
        h = x.new_zeros(*x.shape[:2], state)
        y: list = [None] * length
        for t in reversed(range(length)) if k == 1 else range(length):
            inflow = (delta[..., t] * x[..., t])[..., None] * B[:, None, :, t]
            h = torch.exp(delta[..., t, None] * A[k]) * h + inflow
            y[t] = (h * C[:, None, :, t]).sum(-1)
        out = out + torch.stack(y, -1)
    return out.to(u.dtype)


def _shift(x: Tensor, forward: bool) -> Tensor:
    """Move ``x`` by one along dimension 1; a zero enters at the free end."""
    empty = torch.zeros_like(x[:, :1])
    parts = (empty, x[:, :-1]) if forward else (x[:, 1:], empty)
    return torch.cat(parts, dim=1)


def _chunk_of(length: int) -> int:
    """Return a chunk near CHUNK that needs no padding, which copies."""
    if length <= 2 * CHUNK:
        return length
    near = [n for n in range(5, 13) if length % n == 0]
    return min(near, key=lambda n: abs(n - CHUNK)) if near else CHUNK


def _scan(
    a: Tensor, b: Tensor, reverse: bool, levels: int = MAX_LEVELS
) -> Tensor:
    """Return all h of ``h_t = a_t h_(t-1) + b_t`` along dimension 1."""
    length = a.shape[1]
    # A graph of free size is traced once, and no branch may depend on it.
    free = size_is_free()
    if not free and length <= 1:
        return b
    chunk = CHUNK if free else _chunk_of(length)
    # Of positive numbers only: ONNX divides integers towards zero.
    count = (length + chunk - 1) // chunk
    pad = count * chunk - length
    if free or pad:
        # Padding stands at the end: read last, or first with a zero state.
        spec = [0, 0] * (a.dim() - 2) + [0, pad]
        a, b = F.pad(a, spec), F.pad(b, spec)
    several = levels > 1 if free else count > 1
    # (batch, count, 1, ...) each: dimensions of one cost a runtime nothing
    a_at = a.unflatten(1, (-1, chunk)).split(1, 2)
    b_at = b.unflatten(1, (-1, chunk)).split(1, 2)
    order = -1 if reverse else 1
    decay, state = [], []
    for a, b in zip(a_at[::order], b_at[::order], strict=True):
        if state:
            b = torch.addcmul(b, a, state[-1])
            a = a * decay[-1] if several else a
        decay.append(a)
        state.append(b)
    h = torch.cat(state[::order], dim=2)
    if several:
        ends = _scan(a.squeeze(2), b.squeeze(2), reverse, levels - 1)
        enter = _shift(ends, forward=not reverse).unsqueeze(2)
        h = torch.addcmul(h, torch.cat(decay[::order], dim=2), enter)
    h = h.flatten(1, 2)
    return h[:, :length] if free or pad else h


class _LinearRecurrence(torch.autograd.Function):
    """Scan whose backward is a scan the other way.

    Autograd through the chunks would keep every partial state and decay; here
    only a and h are kept.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, reverse: bool) -> Tensor:
        h = _scan(a, b, reverse)
        ctx.save_for_backward(a, h)
        ctx.reverse = reverse
        return h

    @staticmethod
    def backward(ctx, grad: Tensor):
        a, h = ctx.saved_tensors
        forward = not ctx.reverse
        # The gradient of h_t reaches h_(t-1) through a_t.
        db = linear_recurrence(
            _shift(a, forward=not forward), grad, reverse=forward
        )
        return db * _shift(h, forward), db, None


def linear_recurrence(a: Tensor, b: Tensor, reverse: bool = False) -> Tensor:
    """Solve ``h_t = a_t h_(t-1) + b_t`` with ``h_0 = 0`` along dimension 1.

    Args:
        a (Tensor): Decays, (batch, length, ...), floating.
        b (Tensor): Inputs of the same shape and dtype.
        reverse (bool): Run from the last token to the first. Defaults to
            False.

    Returns:
        Tensor: All states, of the shape of ``b``.
    """
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _LinearRecurrence.apply(a, b, reverse)
    return _scan(a, b, reverse)


def bidirectional_scan(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
) -> Tensor:
    """Run both directions over all tokens at once, flipping nothing.

    See :func:`mmmobilemamba.ops.bidirectional_scan` for the arguments.
    """
    dtype = state_dtype(u.dtype)
    rank, state = dt_proj.shape[2], A.shape[2]
    x = u.to(dtype).transpose(1, 2)  # (batch, L, inner)
    rows = proj.to(dtype).transpose(2, 3)  # (batch, K, L, rank + 2 N)
    y = x * D.to(dtype).sum(0)
    for k in range(proj.shape[1]):
        dt, B, C = rows[:, k].split([rank, state, state], dim=2)
        step = F.softplus(
            F.linear(dt, dt_proj[k].to(dtype), dt_bias[k].to(dtype))
        )
        decay, inflow = A[k].to(dtype), step * x
        if state == 1:
            h = linear_recurrence(
                torch.exp(step * decay[:, 0]), inflow * B, reverse=k == 1
            )
            y = torch.addcmul(y, h, C)
        else:
            h = linear_recurrence(
                torch.exp(step[..., None] * decay),
                inflow[..., None] * B[:, :, None],
                reverse=k == 1,
            )
            y = y + (h * C[:, :, None]).sum(-1)
    return y.to(u.dtype).transpose(1, 2)

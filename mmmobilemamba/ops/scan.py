"""The scan in plain PyTorch, over chunks of tokens or token by token.

The recurrence ``h_t = a_t h_(t-1) + b_t`` is associative, so the tokens are
cut into chunks of about ``CHUNK``: all are scanned at once, one step per
position inside the chunk, the chunks' last states are scanned by the same
function, and the state that enters each chunk is added back. A sequence of
length L takes ``CHUNK * log(L) / log(CHUNK)`` steps on whole tensors and about
three multiply-adds per element. Tensors are token-major, (batch, length,
channels), so that every step reads whole rows; a channels_last feature map
already is.
"""

from collections.abc import Callable

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
    """Scan whose backward is one the other way, and keeps only a and h."""

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


def linear_recurrence(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    """Solve ``h_t = a_t h_(t-1) + b_t``, all (batch, length, ...), by chunks.

    ``h_0`` is 0; with ``reverse`` it runs from the last token to the first.
    """
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _LinearRecurrence.apply(a, b, reverse)
    return _scan(a, b, reverse)


def recurrence_loop(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    """Solve the same token by token: slow, exact, the measure."""
    h, states = torch.zeros_like(b[:, 0]), [b] * b.shape[1]
    for t in reversed(range(len(states))) if reverse else range(len(states)):
        h = states[t] = a[:, t] * h + b[:, t]
    return torch.stack(states, dim=1)


def bidirectional_scan(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    recurrence: Callable[[Tensor, Tensor, bool], Tensor] = linear_recurrence,
) -> Tensor:
    """Run both directions, flipping nothing.

    ``h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t``, ``y_t = C_t h_t + D
    u_t``. See :func:`mmmobilemamba.ops.bidirectional_scan` for the arguments.

    Source: Mamba (arXiv:2312.00752), equation 2 with the simplified
    discretisation of B; MobileMamba (arXiv:2411.15941), section 3.3.
    """
    dtype = state_dtype(u.dtype)
    dt_proj, dt_bias, A, D = (p.to(dtype) for p in (dt_proj, dt_bias, A, D))
    rank, state = dt_proj.shape[2], A.shape[2]
    x = u.to(dtype).transpose(1, 2)  # (batch, L, inner)
    rows = proj.to(dtype).transpose(2, 3)  # (batch, K, L, rank + 2 N)
    y = x * D.sum(0)
    for k in range(proj.shape[1]):
        dt, B, C = rows[:, k].split([rank, state, state], dim=2)
        delta = F.softplus(F.linear(dt, dt_proj[k], dt_bias[k]))
        if state == 1:
            decay = torch.exp(delta * A[k, :, 0])
            y = torch.addcmul(y, recurrence(decay, delta * x * B, k == 1), C)
        else:
            decay = torch.exp(delta[..., None] * A[k])
            inflow = (delta * x)[..., None] * B[:, :, None]
            h = recurrence(decay, inflow, k == 1)
            y = y + (h * C[:, :, None]).sum(-1)
    return y.to(u.dtype).transpose(1, 2)

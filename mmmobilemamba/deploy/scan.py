"""The linear recurrence of the scan, in forms that standard ONNX can hold.

``h_t = a_t h_(t-1) + b_t`` along dimension 2 of (batch, directions, length,
channels), from the first token to the last; a reversed scan reads its tokens
flipped. All forms give the same numbers up to rounding. A graph is traced
once: where the length is fixed a form may depend on it, where it is free not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

FORMS = ('chunked', 'doubling', 'scan')
# Tokens of a chunk where nothing speaks for another number.
CHUNK = 8
# Placeholder of the sequential form until deploy.graph puts ONNX Scan there.
DOMAIN = 'mmmobilemamba'


class _Sequential(Function):
    """The recurrence token by token, one node of the exported graph."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
        states = []
        for decay, inflow in zip(a.unbind(-2), b.unbind(-2), strict=True):
            state = decay * state + inflow
            states.append(state)
        return torch.stack(states, -2)

    @staticmethod
    def symbolic(g, a, b, state):
        h = g.op(f'{DOMAIN}::LinearRecurrence', a, b, state)
        # Free sizes: the one at hand need not be that of another picture.
        return h.setType(b.type().with_sizes([None] * 4))


def call(function: type[Function], *args) -> Tensor:
    """Call a function by its ONNX symbol where a graph is exported.

    Other tracers see the operators of its PyTorch form instead.
    """
    if torch.onnx.is_in_onnx_export():
        return function.apply(*args)
    return function.forward(None, *args)


def _sequential(a: Tensor, b: Tensor) -> Tensor:
    return call(_Sequential, a, b, torch.zeros_like(b[..., 0, :]))


def _doubling(a: Tensor, b: Tensor, length: int) -> Tensor:
    """Scan in log2(length) passes over all tokens."""
    reach = 1
    while reach < length:
        # Beyond the first token nothing flows in, whatever the decay.
        b = b + a * F.pad(b, (0, 0, reach, 0))[..., :-reach, :]
        if 2 * reach < length:
            a = a * F.pad(a, (0, 0, reach, 0))[..., :-reach, :]
        reach *= 2
    return b


def _unrolled(a: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Scan along dimension -2 from a zero state; return states, decays."""
    a_at, b_at = a.split(1, -2), b.split(1, -2)
    state, decay = [b_at[0]], [a_at[0]]
    for i in range(1, len(a_at)):
        state.append(a_at[i] * state[-1] + b_at[i])
        decay.append(a_at[i] * decay[-1])
    return state, decay


def _chunked(a: Tensor, b: Tensor, length: int | None, chunk: int) -> Tensor:
    """Scan all chunks at once, then the chunks' ends, then join them."""
    if length is not None and length <= chunk:
        return torch.cat(_unrolled(a, b)[0], -2)
    size = a.shape[-2] if length is None else length
    pad = (chunk - size % chunk) % chunk
    if length is None or pad:
        a, b = F.pad(a, (0, 0, 0, pad)), F.pad(b, (0, 0, 0, pad))
    count = None if length is None else (length + pad) // chunk
    # (batch, directions, count, chunk, channels)
    states, decays = _unrolled(
        a.unflatten(-2, (-1, chunk)), b.unflatten(-2, (-1, chunk))
    )
    decay_of_chunk, end = decays[-1].squeeze(-2), states[-1].squeeze(-2)
    if count is None:
        ends = _sequential(decay_of_chunk, end)
    else:
        ends = _chunked(decay_of_chunk, end, count, chunk)
    enter = F.pad(ends, (0, 0, 1, 0))[..., :-1, :].unsqueeze(-2)
    h = torch.cat(states, -2) + torch.cat(decays, -2) * enter
    h = h.flatten(-3, -2)
    return h[..., :size, :] if length is None or pad else h


def chunk_of(length: int | None) -> int:
    """Choose how many tokens a chunk has.

    A divisor of the length saves a filling up, and one near its root makes
    the smallest graph.

    Args:
        length (int, optional): Number of tokens; None where it is free.

    Returns:
        int: Tokens.
    """
    if length is None:
        return CHUNK
    divisors = [n for n in range(4, 33) if length % n == 0]
    return min(divisors, key=lambda n: abs(n - length**0.5), default=CHUNK)


def linear_recurrence(
    a: Tensor,
    b: Tensor,
    length: int | None = None,
    form: str = 'chunked',
    chunk: int | None = None,
) -> Tensor:
    """Solve ``h_t = a_t h_(t-1) + b_t`` with ``h_0 = 0``.

    Args:
        a (Tensor): Decays, (batch, directions, length, channels),
            floating.
        b (Tensor): Inputs of the same shape and dtype.
        length (int, optional): Number of tokens. None leaves it free, which
            the form ``'doubling'`` cannot. Defaults to None.
        form (str): ``'chunked'`` scans chunks of ``chunk`` tokens side by
            side, ``'doubling'`` passes over all tokens log2(length) times,
            ``'scan'`` is the sequential ONNX operator. Defaults to
            ``'chunked'``.
        chunk (int, optional): Tokens of a chunk. Defaults to None, that of
            :func:`chunk_of`.

    Returns:
        Tensor: All states, of the shape of ``b``.

    Raises:
        ValueError: The form is unknown, or cannot leave the length free.
    """
    if form not in FORMS:
        raise ValueError(f'form must be one of {FORMS}, got {form!r}.')
    if form == 'scan':
        return _sequential(a, b)
    if form == 'chunked':
        return _chunked(a, b, length, chunk or chunk_of(length))
    if length is None:
        raise ValueError("form='doubling' needs a fixed length, got None.")
    return _doubling(a, b, length)

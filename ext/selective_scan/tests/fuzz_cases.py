"""Random arguments of every operator, right ones.

Tensors end where their memory ends: a read or write beyond them is one that
AddressSanitizer sees.
"""

import random
from functools import partial

import torch
from selective_scan._checks import state_dtype

DTYPES = (torch.float32, torch.float32, torch.float16, torch.bfloat16) + (
    torch.float64,
)
_POOL = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
_ODD = torch.tensor([float('nan'), float('inf'), -float('inf'), 1e30, 0.0])


class Draw(random.Random):
    """Random numbers of one call."""

    def chance(self, share):
        return self.random() < share

    def tensor(self, shape, dtype=torch.float32, odd=False):
        """Return values in any layout, at the end of their memory."""
        order = list(range(len(shape)))
        if self.chance(0.5):
            self.shuffle(order)
        strides, step = [0] * len(shape), 1
        for dim in reversed(order):
            if self.chance(0.1):
                step *= self.randint(1, 3)
            strides[dim] = step
            step *= max(shape[dim], 1)
        if shape and self.chance(0.1):
            strides[self.randrange(len(shape))] = 0
        offset = self.choice((0, 0, 0, 1, 3))
        total = offset + 1
        total += sum((n - 1) * s for n, s in zip(shape, strides) if n > 1)
        first = self.randrange(1 << 15)
        values = _POOL[first : first + total]
        if values.numel() < total:
            values = values.repeat(-(-total // values.numel()))[:total]
        values = values.to(dtype, copy=True)
        if odd:
            places = [self.randrange(total) for _ in range(3)]
            values[places] = _ODD[[self.randrange(5) for _ in places]].to(
                dtype
            )
        return values.as_strided(shape, strides, offset)

    def size(self, most):
        """Return a size, often a small or an awkward one."""
        return self.choice((0, 1, 2, 15, 16, 17, self.randint(1, most)))


def plain(draw, odd):
    dtype = draw.choice(DTYPES)
    groups = draw.choice((1, 1, 1, 2, 3))
    batch, length = draw.choice((0, 1, 1, 2, 3)), draw.size(40)
    dim = groups * draw.size(24)
    state = draw.choice((1, 1, 2, 3, draw.randint(1, 20)))
    wide = partial(draw.tensor, dtype=dtype, odd=odd)
    parameter = partial(draw.tensor, dtype=state_dtype(dtype))
    case = dict(
        u=wide((batch, dim, length)),
        delta=wide((batch, dim, length)),
        A=-parameter((dim, state)).abs(),
        B=wide((batch, groups, state, length)),
        C=wide((batch, groups, state, length)),
        D=parameter((dim,)) if draw.chance(0.7) else None,
        delta_bias=parameter((dim,)) if draw.chance(0.7) else None,
        delta_softplus=odd or draw.chance(0.9),
        reverse=draw.chance(0.5),
    )
    if not case['delta_softplus']:
        # Negative steps would let the state grow without bounds.
        case.update(delta=case['delta'].abs(), delta_bias=None)
    return case


def fused(draw, odd):
    dtype = draw.choice(DTYPES)
    batch, length = draw.choice((0, 1, 1, 2, 3)), draw.size(40)
    inner, directions = draw.size(40), draw.choice((1, 2, 2))
    state = draw.choice((1, 1, 1, 2, draw.randint(1, 20)))
    rank = draw.randint(1, 9)
    wide = partial(draw.tensor, dtype=dtype, odd=odd)
    parameter = partial(draw.tensor, dtype=state_dtype(dtype))
    return dict(
        u=wide((batch, inner, length)),
        proj=wide((batch, directions, rank + 2 * state, length)),
        dt_proj=parameter((directions, inner, rank)) / 4,
        dt_bias=parameter((directions, inner)),
        A=-parameter((directions, inner, state)).abs(),
        D=parameter((directions, inner)),
    )


def with_grad(make, draw, odd):
    case = make(draw, odd)
    u = case['u']
    return dict(grad=draw.tensor(tuple(u.shape), u.dtype, odd), **case)


def _padded(channels):
    return -(-channels // 16) * 16


def _map(draw, odd):
    channels = draw.size(40)
    shape = (draw.choice((0, 1, 1, 2)), channels, draw.size(20), draw.size(20))
    return draw.tensor(shape, odd=odd), _padded(channels)


def depthwise(draw, odd):
    x, padded = _map(draw, odd)
    side = draw.choice((1, 3, 3, 5, 7, 9, 21))
    values = partial(draw.tensor, (padded,))
    return dict(
        x=x,
        weight=draw.tensor((side, side, padded)).contiguous(),
        bias=values() if draw.chance(0.7) else None,
        activation=draw.choice(('none', 'relu', 'silu')),
        scale=values() if draw.chance(0.4) else None,
        shift=values() if draw.chance(0.4) else None,
    )


def wavelet(draw, odd):
    x, padded = _map(draw, odd)
    side = draw.choice((1, 3, 3, 5, 7, 15))
    return dict(x=x, weight=draw.tensor((side, side, 4, padded)).contiguous())


def _matrix(draw, outputs, depth):
    """Draw a weight as pack_matrix gives it, of results of about 1."""
    shape = (_padded(outputs) // 16, depth, 16)
    return (draw.tensor(shape) / max(depth, 1) ** 0.5).contiguous()


def _strassen(draw, outputs, depth):
    """Draw a weight as pack_strassen gives it."""
    pairs = outputs // 32
    tiles = 7 * pairs + 2 * (_padded(outputs) // 16 - 2 * pairs)
    return (draw.tensor((tiles, depth // 2, 16)) / depth**0.5).contiguous()


def dense(draw, odd):
    channels, outputs = 1 + draw.size(40), 1 + draw.size(50)
    kernel, stride, padding = (
        [draw.randint(low, high) for _ in range(2)]
        for low, high in ((1, 4), (1, 3), (0, 3))
    )
    strassen = draw.chance(0.3)
    if strassen:
        channels, outputs = 2 * draw.randint(16, 40), draw.randint(1, 100)
        kernel = [1, 1]
    batch = draw.choice((0, 1, 1, 2))
    sides = [
        max(0, k - 2 * p) + draw.size(12)
        for k, p in zip(kernel, padding, strict=True)
    ]
    results = [
        (n + 2 * p - k) // s + 1
        for n, p, k, s in zip(sides, padding, kernel, stride, strict=True)
    ]
    if strassen:
        weight = _strassen(draw, outputs, channels)
    else:
        weight = _matrix(draw, outputs, channels * kernel[0] * kernel[1])
    bias = draw.tensor((_padded(outputs),)) if draw.chance(0.7) else None
    add = None
    if draw.chance(0.4):
        add = draw.tensor((batch, outputs, *results))
    return dict(
        x=draw.tensor((batch, channels, *sides), odd=odd),
        weight=weight,
        bias=bias,
        channels=outputs,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        activation=draw.choice(('none', 'relu', 'silu')),
        add=add,
    )


def halving(draw, odd):
    channels, outputs = 1 + draw.size(40), 1 + draw.size(50)
    shape = (draw.choice((0, 1, 1, 2)), channels, draw.size(12), draw.size(12))
    weight = _matrix(draw, outputs, 25 * channels)
    return dict(
        x=draw.tensor(shape, odd=odd),
        weight=weight,
        bias=draw.tensor((16 * len(weight),)) if draw.chance(0.7) else None,
        channels=outputs,
        activation=draw.choice(('none', 'relu', 'silu')),
    )


def feed_forward(draw, odd):
    channels, hidden = 1 + draw.size(40), 1 + draw.size(60)
    matrix = _matrix
    if draw.chance(0.3):
        channels, hidden = (2 * draw.randint(16, 40) for _ in range(2))
        matrix = _strassen
    first = matrix(draw, hidden, channels)
    second = matrix(draw, channels, hidden)
    padded = _padded(channels)
    biases = [
        draw.tensor((_padded(n),)) if draw.chance(0.7) else None
        for n in (hidden, channels)
    ]
    shape = (draw.choice((0, 1, 1, 2)), channels, draw.size(9), draw.size(9))
    filter = filter_bias = None
    if draw.chance(0.6):
        filter = draw.tensor((3, 3, padded)) / 3
        filter_bias = draw.tensor((padded,)) if draw.chance(0.7) else None
    return dict(
        x=draw.tensor(shape, odd=odd),
        first=first,
        first_bias=biases[0],
        second=second,
        second_bias=biases[1],
        hidden=hidden,
        activation=draw.choice(('none', 'relu', 'silu')),
        filter=filter,
        filter_bias=filter_bias,
        add=draw.tensor(shape) if draw.chance(0.4) else None,
    )


def pack_dense(draw, odd):
    kernel = (3, 3) if draw.chance(0.5) else (draw.size(4), draw.size(4))
    shape = (draw.size(40), draw.size(20), *kernel)
    return dict(weight=draw.tensor(shape, draw.choice(DTYPES)))


def pack_pointwise(draw, odd):
    shape = (draw.size(70), draw.randint(16, 50) * 2, 1, 1)
    return dict(weight=draw.tensor(shape, draw.choice(DTYPES)))


def gate(draw, odd):
    channels = draw.choice((0, 8, 15, 16, 17, draw.randint(8, 70)))
    shape = (draw.choice((0, 1, 1, 2)), draw.size(20), channels)
    return dict(
        x=draw.tensor(shape, odd=odd),
        z=draw.tensor(shape, odd=odd),
        weight=draw.tensor(shape[2:]),
        bias=draw.tensor(shape[2:]),
        eps=draw.choice((1e-5, 1e-5, 1.0, 0.0)),
    )


def pack(bands, draw, odd):
    side, dtype = draw.choice((1, 3, 5, 7)), draw.choice(DTYPES)
    return dict(
        weight=draw.tensor((bands * draw.size(40), 1, side, side), dtype)
    )


def values(draw, odd):
    return dict(values=draw.tensor((draw.size(40),), draw.choice(DTYPES)))

"""Inputs, layouts and tolerances that the tests share."""

import os

import selective_scan as ss
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from selective_scan import inference as si

# Against the float64 reference on the same rounded inputs: absolute error
# allowed, relative to the largest magnitude of the tensor compared.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.2e-2,
}
TOKEN_LAYOUTS = ('contiguous', 'channels_last', 'sliced', 'half', 'strided')
MAP_LAYOUTS = ('contiguous', 'channels_last', 'slice', 'slice_last', 'strided')


def random_settings(examples):
    """Return settings of hypothesis; SCAN_EXAMPLES times as many examples."""
    factor = int(os.environ.get('SCAN_EXAMPLES', 1))
    return settings(
        max_examples=factor * examples,
        deadline=None,
        derandomize=factor == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def strided(draw, tensor):
    """Draw any order of dimensions and gaps for the same values."""
    order = draw(st.permutations(range(tensor.dim())))
    steps = [draw(st.sampled_from([1, 1, 1, 2])) for _ in order]
    sizes = [tensor.shape[d] * step for d, step in zip(order, steps)]
    wide = tensor.new_full(sizes, 9)
    view = wide[tuple(slice(None, None, step) for step in steps)]
    view = view.permute([order.index(d) for d in range(tensor.dim())])
    return view.copy_(tensor)


def at_memory_end(tensor):
    """Let memory end with the tensor, so that AddressSanitizer sees more."""
    if tensor.numel() == 0:
        return tensor
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
    memory = tensor.new_zeros(last + 1)
    return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def devices():
    """List the devices that hold kernels here."""
    return ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])


def assert_close(actual, expected, dtype, what=''):
    """Compare with the float64 reference by the table's tolerance."""
    assert actual.shape == expected.shape, what
    actual, expected = actual.double().cpu(), expected.double().cpu()
    assert actual.isfinite().all(), f'{what}: not finite'
    if actual.numel() == 0:
        return
    scale = expected.abs().max().clamp_min(1e-3)
    error = ((actual - expected).abs().max() / scale).item()
    assert error <= TOLERANCE[dtype], f'{what}: error {error:.2e}'


def lay_out(x, layout):
    """Return tokens or rows in another memory layout, of TOKEN_LAYOUTS."""
    if layout == 'contiguous':
        return x.contiguous()
    if layout == 'channels_last':
        return x.movedim(-1, 1).contiguous().movedim(1, -1)
    if layout == 'half':  # of the channels of such a tensor
        both = lay_out(torch.cat((x, x), dim=1), 'channels_last')
        return both[:, x.shape[1] :]
    *sizes, length = x.shape
    if layout == 'sliced':
        return x.new_full((*sizes, length + 3), 9)[..., 2:-1].copy_(x)
    return x.new_full((*sizes, 2 * length), 9)[..., ::2].copy_(x)


def lay_out_map(x, layout):
    """Return a map in another memory layout, slices being of channels."""
    batch, channels, height, width = x.shape
    if layout == 'strided':
        shape = (batch, channels, 2 * height, 3 * width)
        return x.new_full(shape, 9)[..., ::2, ::3].copy_(x)
    if layout == 'contiguous':
        return x.contiguous()
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    wide = x.new_full((batch, channels + 4, height, width), 9)
    if layout == 'slice_last':
        wide = wide.contiguous(memory_format=torch.channels_last)
    return wide[:, 1:-3].copy_(x)


def _normal(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(
        shape, generator=generator, dtype=torch.float64
    )


def _finish(
    inputs,
    parameters,
    dtype=torch.float32,
    layout='contiguous',
    device='cpu',
    place=lay_out,
):
    """Give inputs and parameters their types, and inputs their layouts."""
    layouts = [layout] * len(inputs) if isinstance(layout, str) else layout
    state = torch.float64 if dtype == torch.float64 else torch.float32
    case = {
        name: place(value.to(dtype), layout)
        for (name, value), layout in zip(inputs.items(), layouts)
    }
    case.update({k: v.to(state) for k, v in parameters.items()})
    return {k: v.to(device) for k, v in case.items()}


# The arguments of each function by name. dtype, layout (of each input where
# there are several) and device come last.


def plain_case(
    batch=2,
    dim=6,
    length=7,
    state=1,
    groups=1,
    *where,
    seed=0,
    optional=True,
    **named,
):
    randn = _normal(seed)
    inputs = dict(
        u=randn(batch, dim, length),
        delta=randn(batch, dim, length) - 0.5,
        B=randn(batch, groups, state, length),
        C=randn(batch, groups, state, length),
    )
    parameters = dict(A=-randn(dim, state).exp())
    if optional:
        parameters.update(D=randn(dim), delta_bias=randn(dim))
    return _finish(inputs, parameters, *where, **named)


def fused_case(
    batch=2,
    inner=6,
    length=7,
    state=1,
    rank=3,
    directions=2,
    *where,
    seed=0,
    **named,
):
    randn = _normal(seed)
    inputs = dict(
        u=randn(batch, inner, length),
        proj=randn(batch, directions, rank + 2 * state, length),
    )
    parameters = dict(
        dt_proj=randn(directions, inner, rank) / rank**0.5,
        dt_bias=randn(directions, inner) - 0.5,
        A=-randn(directions, inner, state).exp(),
        D=randn(directions, inner),
    )
    return _finish(inputs, parameters, *where, **named)


def norm_case(batch=2, channels=7, length=9, *where, **named):
    randn = _normal(batch + channels * length)
    inputs = dict(
        x=randn(batch, channels, length) * 2 + 3,
        z=randn(batch, channels, length) * 3,
    )
    parameters = dict(weight=randn(channels).exp(), bias=randn(channels))
    return _finish(inputs, parameters, *where, **named)


def wavelet_case(
    batch=2, channels=5, height=7, width=6, side=3, *where, **named
):
    randn = _normal(channels * height + width * side)
    parameters = dict(
        weight=randn(4 * channels, 1, side, side) / side,
        scale=randn(1, 4 * channels, 1, 1).exp(),
    )
    x = dict(x=randn(batch, channels, height, width))
    return _finish(x, parameters, *where, place=lay_out_map, **named)


CASES = {
    'selective_scan': plain_case,
    'bidirectional_scan': fused_case,
    'wavelet_conv2d': wavelet_case,
    'gated_layer_norm': norm_case,
}


# Arguments of the operators for inference.
X, ONES = torch.randn(1, 20, 4, 4), torch.ones(32)
TAPS = si.pack_depthwise(torch.randn(20, 1, 3, 3))
BANDS = si.pack_wavelet(torch.randn(80, 1, 3, 3))
INFERENCE = {
    'depthwise_conv2d': dict(
        x=X, weight=TAPS, bias=ONES, scale=ONES, shift=ONES
    ),
    'packed_wavelet_conv2d': dict(x=X, weight=BANDS),
    'dense_conv2d': dict(
        x=X,
        weight=si.pack_matrix(torch.randn(40, 20, 3, 3)),
        bias=torch.ones(48),
        channels=40,
        kernel_size=(3, 3),
        stride=(1, 2),
        padding=(1, 1),
        add=torch.ones(1, 40, 4, 2),
    ),
    'feed_forward': dict(
        x=X,
        first=si.pack_matrix(torch.randn(40, 20, 1, 1)),
        first_bias=torch.ones(48),
        second=si.pack_matrix(torch.randn(20, 40, 1, 1)),
        second_bias=ONES,
        hidden=40,
        filter=TAPS,
        filter_bias=ONES,
        add=X,
    ),
}


def run_with_grads(function, case, grad, **flags):
    """Run a function; return its output and every gradient by name."""
    leaves = {k: v.detach().requires_grad_() for k, v in case.items()}
    y = function(**leaves, **flags)
    y.backward(grad.to(y.dtype))
    return {'y': y.detach(), **{k: v.grad for k, v in leaves.items()}}


def check(
    name,
    case,
    layout='contiguous',
    run=run_with_grads,
    close=assert_close,
    **flags,
):
    """Compare a function and its gradients with its float64 reference.

    ``layout`` is that of the result's gradient, or what gives it one. ``run``
    and ``close`` compute and compare. Result, as y, and gradients by name are
    returned.
    """
    x = next(iter(case.values()))
    grad = _normal(99)(*x.shape).to(x.dtype)
    place = lay_out_map if x.dim() == 4 else lay_out
    placed = layout(grad) if callable(layout) else place(grad, layout)
    actual = run(getattr(ss, name), case, placed.to(x.device), **flags)
    exact = {k: v.detach().cpu().double() for k, v in case.items()}
    reference = getattr(ss, f'{name}_reference')
    expected = run_with_grads(reference, exact, grad.double(), **flags)
    assert actual['y'].dtype == x.dtype
    for key, value in actual.items():
        wanted = expected[key]
        if wanted is None:  # the reference never reached it
            wanted = torch.zeros_like(value)
        close(value, wanted, x.dtype, key)
    return actual

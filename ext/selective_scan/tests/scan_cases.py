"""Inputs, layouts and tolerances that the tests share."""

import os

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Against the float64 reference on the same rounded inputs: absolute error
# allowed, relative to the largest magnitude of the tensor compared.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.2e-2,
}


def random_settings(examples):
    """Return settings of hypothesis; SCAN_EXAMPLES times as many examples.

    Examples are the same at every run, or new ones where more are asked for.
    """
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
    """Return the tensor in memory that ends where its last value does.

    A read or write beyond it is one that AddressSanitizer sees.
    """
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


def lay_out(tensor, layout):
    """Return the same values in another memory layout.

    'contiguous', 'channels_last' (the second to last dimension has stride 1),
    'sliced' (contiguous rows in a larger tensor) or 'strided' (no unit
    stride).
    """
    if layout == 'contiguous':
        return tensor.contiguous()
    if layout == 'channels_last':
        return tensor.movedim(-1, 1).contiguous().movedim(1, -1)
    if layout == 'sliced':
        wide = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 3), 9)
        wide[..., 2:-1] = tensor
        return wide[..., 2:-1]
    wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), 9)
    wide[..., ::2] = tensor
    return wide[..., ::2]


def plain_case(
    batch=2,
    dim=6,
    length=7,
    state=1,
    groups=1,
    dtype=torch.float32,
    layout='contiguous',
    device='cpu',
    seed=0,
    optional=True,
):
    """Make the arguments of selective_scan by name."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = dict(
        u=randn(batch, dim, length),
        delta=randn(batch, dim, length) - 0.5,
        B=randn(batch, groups, state, length),
        C=randn(batch, groups, state, length),
    )
    inputs = {k: lay_out(v.to(dtype), layout) for k, v in inputs.items()}
    parameters = dict(A=-randn(dim, state).exp())
    if optional:
        parameters.update(D=randn(dim), delta_bias=randn(dim))
    inputs.update({k: v.to(parameter) for k, v in parameters.items()})
    return {k: v.to(device) for k, v in inputs.items()}


def fused_case(
    batch=2,
    inner=6,
    length=7,
    state=1,
    rank=3,
    directions=2,
    dtype=torch.float32,
    layout='contiguous',
    device='cpu',
    seed=0,
):
    """Make the arguments of bidirectional_scan by name."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = dict(
        u=randn(batch, inner, length),
        proj=randn(batch, directions, rank + 2 * state, length),
    )
    inputs = {k: lay_out(v.to(dtype), layout) for k, v in inputs.items()}
    parameters = dict(
        dt_proj=randn(directions, inner, rank) / rank**0.5,
        dt_bias=randn(directions, inner) - 0.5,
        A=-randn(directions, inner, state).exp(),
        D=randn(directions, inner),
    )
    inputs.update({k: v.to(parameter) for k, v in parameters.items()})
    return {k: v.to(device) for k, v in inputs.items()}


def run_with_grads(function, case, grad, **flags):
    """Run a function; return its output and every gradient by name."""
    leaves = {k: v.detach().requires_grad_() for k, v in case.items()}
    y = function(**leaves, **flags)
    y.backward(grad.to(y.dtype))
    return {'y': y.detach(), **{k: v.grad for k, v in leaves.items()}}


def compare(
    function, reference, case, dtype, grad_layout='contiguous', **flags
):
    """Compare output and gradients with the float64 reference."""
    generator = torch.Generator().manual_seed(99)
    grad = torch.randn(
        case['u'].shape, generator=generator, dtype=torch.float64
    ).to(dtype)
    device = case['u'].device
    actual = run_with_grads(
        function, case, lay_out(grad, grad_layout).to(device), **flags
    )
    exact = {k: v.detach().cpu().double() for k, v in case.items()}
    expected = run_with_grads(reference, exact, grad.double(), **flags)
    for name, value in actual.items():
        assert_close(value, expected[name], dtype, name)
    return actual

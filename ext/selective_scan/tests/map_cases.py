"""Inputs, layouts and checks that the tests around the scan share."""

import selective_scan as ss
import torch
from scan_cases import assert_close, lay_out, run_with_grads

TOKEN_LAYOUTS = ('contiguous', 'channels_last', 'sliced', 'half', 'strided')
MAP_LAYOUTS = ('contiguous', 'channels_last', 'slice', 'slice_last', 'strided')


def place(x, layout):
    """Return a map or tokens in a memory layout, some slices of larger ones.

    Tokens as ``lay_out``, and 'half' of a channels-last tensor's channels.
    """
    if layout == 'half':
        both = lay_out(torch.cat((x, x), dim=1), 'channels_last')
        return both[:, x.shape[1] :]
    if x.dim() == 3 or layout == 'contiguous':
        return lay_out(x, layout)
    batch, channels, height, width = x.shape
    shape = (batch, channels + 4, height, width)
    if layout == 'strided':
        shape = (batch, channels, 2 * height, 3 * width)
        return x.new_full(shape, 9)[..., ::2, ::3].copy_(x)
    if layout == 'slice':
        return x.new_full(shape, 9)[:, 1:-3].copy_(x)
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    wide = x.new_full(shape, 9).contiguous(memory_format=torch.channels_last)
    return wide[:, 3:-1].copy_(x)


def norm_case(
    batch=2,
    channels=7,
    length=9,
    dtype=torch.float32,
    layouts=('contiguous', 'contiguous'),
    device='cpu',
):
    """Make the arguments of gated_layer_norm by name."""
    torch.manual_seed(batch + channels * length)
    x, z = torch.randn(2, batch, channels, length, dtype=torch.float64)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    case = dict(
        x=place((x * 2 + 3).to(dtype), layouts[0]),
        z=place((z * 3).to(dtype), layouts[1]),
        weight=torch.rand(channels, dtype=state) + 0.5,
        bias=torch.randn(channels, dtype=state),
    )
    return {k: v.to(device) for k, v in case.items()}


def wavelet_case(
    batch=2,
    channels=5,
    height=7,
    width=6,
    side=3,
    dtype=torch.float32,
    layout='contiguous',
    device='cpu',
):
    """Make the arguments of wavelet_conv2d by name."""
    torch.manual_seed(channels * height + width * side)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    case = dict(
        x=place(x.to(dtype), layout),
        weight=torch.randn(4 * channels, 1, side, side, dtype=state) / side,
        scale=torch.rand(1, 4 * channels, 1, 1, dtype=state) + 0.5,
    )
    return {k: v.to(device) for k, v in case.items()}


def check(name, case, grad_layout='contiguous', run=None):
    """Compare result and gradients with the float64 reference.

    Args:
        name (str): Name of the function.
        case (dict[str, Tensor]): Its arguments.
        grad_layout (str): Layout of the result's gradient.
        run (callable | None): Computes them from function, case and
            gradient. Defaults to None, autograd.

    Returns:
        dict[str, Tensor]: Result, as y, and gradients by name.
    """
    x = case['x']
    grad = torch.randn(x.shape, dtype=torch.float64).to(x.dtype)
    run = run or run_with_grads
    actual = run(
        getattr(ss, name), case, place(grad, grad_layout).to(x.device)
    )
    exact = {k: v.detach().cpu().double() for k, v in case.items()}
    reference = getattr(ss, f'{name}_reference')
    expected = run_with_grads(reference, exact, grad.double())
    for key, value in actual.items():
        assert_close(value, expected[key], x.dtype, key)
    return actual

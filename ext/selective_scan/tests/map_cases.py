"""Inputs and layouts that the tests of the operators on maps share."""

import torch
from scan_cases import lay_out

TOKEN_LAYOUTS = ('contiguous', 'channels_last', 'sliced', 'half', 'strided')


def place_tokens(x, layout):
    """As lay_out; 'half' is one of two halves of a channels-last tensor."""
    if layout != 'half':
        return lay_out(x, layout)
    return lay_out(torch.cat((x, x), dim=1), 'channels_last')[:, x.shape[1] :]


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
        x=place_tokens((x * 2 + 3).to(dtype), layouts[0]),
        z=place_tokens((z * 3).to(dtype), layouts[1]),
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
        x=place_map(x.to(dtype), layout),
        weight=torch.randn(4 * channels, 1, side, side, dtype=state) / side,
        scale=torch.rand(1, 4 * channels, 1, 1, dtype=state) + 0.5,
    )
    return {k: v.to(device) for k, v in case.items()}


def place_map(x, layout):
    """Return a map in one of four memory layouts, slices of larger ones."""
    batch, channels, height, width = x.shape
    shape = (batch, channels + 4, height, width)
    if layout == 'contiguous':
        return x.contiguous()
    if layout == 'strided':
        shape = (batch, channels, 2 * height, 3 * width)
        return x.new_full(shape, 9)[..., ::2, ::3].copy_(x)
    if layout == 'slice':
        return x.new_full(shape, 9)[:, 1:-3].copy_(x)
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    wide = x.new_full(shape, 9).contiguous(memory_format=torch.channels_last)
    return wide[:, 3:-1].copy_(x)


MAP_LAYOUTS = ('contiguous', 'channels_last', 'slice', 'slice_last', 'strided')

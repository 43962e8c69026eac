"""The operators around the scan agree with PyTorch's, forward."""

import pytest
import torch
import torch.nn.functional as F
from selective_scan import (
    cpu_variant,
    depthwise_conv2d,
    gated_layer_norm,
    pack_channels,
    pack_depthwise,
    pack_wavelet,
    set_cpu_variant,
    wavelet_conv2d,
)

# One float32 rounding for each of up to 200 products of about 1.
TOLERANCE = dict(rtol=1e-5, atol=2e-5)
MAPS = [
    # batch, channels, height, width
    (1, 16, 4, 4),
    (2, 24, 7, 5),
    (3, 38, 1, 9),
    (1, 5, 13, 3),
    (2, 64, 14, 14),
    (1, 17, 150, 83),
]


@pytest.fixture(params=['plain', 'avx2', 'avx512'], autouse=True)
def variant(request):
    try:
        set_cpu_variant(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield
    set_cpu_variant('best')
    assert cpu_variant() in ('plain', 'avx2', 'avx512')


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator)


def layouts(x):
    """Yield the map contiguous, channels_last, and as a slice of channels."""
    yield x
    yield x.contiguous(memory_format=torch.channels_last)
    wide = torch.cat((x, x + 1, x), dim=1)
    wide = wide.contiguous(memory_format=torch.channels_last)
    yield wide[:, : x.shape[1]]


@pytest.mark.parametrize('shape', MAPS)
@pytest.mark.parametrize('side', [1, 3, 5, 7])
def test_depthwise(shape, side):
    channels = shape[1]
    weight = random(channels, 1, side, side)
    bias, scale, shift = (random(channels, seed=i) for i in range(3))
    x = random(*shape, seed=3)
    plain = F.conv2d(x, weight, bias, padding=side // 2, groups=channels)
    affine = scale[:, None, None], shift[:, None, None]
    packed = pack_depthwise(weight)
    for y in layouts(x):
        torch.testing.assert_close(
            depthwise_conv2d(y, packed, pack_channels(bias)),
            plain,
            **TOLERANCE,
        )
    torch.testing.assert_close(
        depthwise_conv2d(x, packed, pack_channels(bias), 'silu'),
        F.silu(plain),
        **TOLERANCE,
    )
    torch.testing.assert_close(
        depthwise_conv2d(
            x,
            packed,
            pack_channels(bias),
            'relu',
            pack_channels(scale),
            pack_channels(shift),
        ),
        F.relu(plain) * affine[0] + affine[1],
        **TOLERANCE,
    )


def haar(x):
    """Transform by one 4x4 orthonormal matrix per cell of 2x2 pixels."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, width % 2, 0, height % 2))
    matrix = 0.5 * torch.tensor(
        [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1.0]]
    )
    cells = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
    return torch.einsum('kp,bcphw->bckhw', matrix, cells).flatten(1, 2), matrix


@pytest.mark.parametrize('shape', MAPS)
@pytest.mark.parametrize('side', [3, 7])
def test_wavelet(shape, side):
    channels, height, width = shape[1:]
    weight = random(4 * channels, 1, side, side)
    x = random(*shape)
    bands, matrix = haar(x)
    bands = F.conv2d(bands, weight, padding=side // 2, groups=4 * channels)
    cells = torch.einsum(
        'kp,bckhw->bcphw', matrix, bands.unflatten(1, (-1, 4))
    )
    plain = F.pixel_shuffle(cells.flatten(1, 2), 2)[..., :height, :width]
    for y in layouts(x):
        torch.testing.assert_close(
            wavelet_conv2d(y, pack_wavelet(weight)), plain, **TOLERANCE
        )


@pytest.mark.parametrize('shape', [(1, 1, 8), (2, 49, 224), (3, 7, 37)])
def test_gated_layer_norm(shape):
    channels = shape[-1]
    # A mean far from 0 shows a variance that loses digits.
    x, z = random(*shape) + 30, 4 * random(*shape, seed=1)
    weight, bias = random(channels), random(channels, seed=1)
    plain = F.layer_norm(x, (channels,), weight, bias) * F.silu(z)
    both = torch.cat((x, z), dim=-1)
    for a, b in ((x, z), both.chunk(2, dim=-1), (x.mT.contiguous().mT, z)):
        torch.testing.assert_close(
            gated_layer_norm(a, b, weight, bias), plain, rtol=1e-4, atol=1e-4
        )


def test_large_gates_stay_finite():
    z = torch.tensor([[[-1e4, -200.0, -90.0, 90.0, 200.0, 1e4, 0.0, 1.0]]])
    x = torch.arange(8.0).view(1, 1, 8)
    y = gated_layer_norm(x, z, torch.ones(8), torch.zeros(8))
    plain = F.layer_norm(x, (8,)) * F.silu(z)
    torch.testing.assert_close(y, plain)


def test_errors_name_the_argument():
    x, weight = random(1, 20, 4, 4), pack_depthwise(random(20, 1, 3, 3))
    with pytest.raises(TypeError, match='x must be float32'):
        depthwise_conv2d(x.double(), weight)
    with pytest.raises(ValueError, match='padded to 32 channels'):
        depthwise_conv2d(x, weight[..., :20].contiguous())
    with pytest.raises(ValueError, match='odd square side'):
        depthwise_conv2d(x, random(2, 2, 32))
    with pytest.raises(ValueError, match=r'weight must .* got \(20, 1, 2, 2'):
        pack_depthwise(random(20, 1, 2, 2))
    with pytest.raises(ValueError, match=r'weight must .*4 \* channels'):
        pack_wavelet(random(18, 1, 3, 3))
    with pytest.raises(ValueError, match=r'values must .*\(channels,\)'):
        pack_channels(random(4, 4))
    with pytest.raises(ValueError, match='shift must stand beside scale'):
        depthwise_conv2d(x, weight, shift=random(32))
    with pytest.raises(ValueError, match='eps must be'):
        gated_layer_norm(x[0], x[0], torch.ones(4), torch.zeros(4), -1.0)
    with pytest.raises(ValueError, match='activation must be none'):
        depthwise_conv2d(x, weight, None, 'gelu')
    with pytest.raises(ValueError, match='bias must have the 32 channels'):
        depthwise_conv2d(x, weight, torch.zeros(20))
    with pytest.raises(ValueError, match=r'\(side, side, 4, channels\)'):
        wavelet_conv2d(x, weight)
    with pytest.raises(ValueError, match='alike'):
        gated_layer_norm(x[0], x[0, :, :2], torch.ones(4), torch.zeros(4))


def test_an_empty_batch_is_empty():
    x, weight = random(0, 16, 4, 4), random(16, 1, 3, 3)
    assert depthwise_conv2d(x, pack_depthwise(weight)).shape == x.shape

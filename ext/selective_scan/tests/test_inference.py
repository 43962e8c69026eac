"""The operators around the scan agree with PyTorch's, forward."""

import pytest
import torch
import torch.nn.functional as F
from selective_scan import (
    cpu_variant,
    dense_conv2d,
    depthwise_conv2d,
    feed_forward,
    gated_layer_norm,
    halving_conv2d,
    pack_channels,
    pack_depthwise,
    pack_halving,
    pack_matrix,
    pack_strassen,
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


CONVOLUTIONS = [
    # batch, channels, height, width, outputs, kernel, stride, padding
    (1, 3, 32, 31, 24, (3, 3), (2, 2), (1, 1)),
    (2, 24, 13, 11, 48, (3, 3), (2, 2), (1, 1)),
    (2, 5, 7, 9, 7, (1, 1), (1, 1), (0, 0)),
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0)),
    (3, 96, 9, 8, 38, (3, 3), (1, 1), (1, 1)),
    # more values than fit the cache at a time, in one run and in several
    (2, 500, 5, 5, 33, (1, 1), (1, 1), (0, 0)),
    (1, 150, 6, 6, 20, (3, 3), (2, 2), (1, 1)),
    (2, 7, 9, 4, 16, (2, 4), (2, 1), (0, 2)),
    (1, 130, 5, 6, 20, (5, 5), (1, 1), (2, 2)),
    # rows for several tasks
    (3, 40, 21, 17, 30, (3, 1), (1, 2), (1, 0)),
]


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('case', CONVOLUTIONS)
def test_dense(case, threads):
    batch, channels, height, width, outputs, kernel, stride, padding = case
    x = random(batch, channels, height, width)
    depth = channels * kernel[0] * kernel[1]
    weight = random(outputs, channels, *kernel) / depth**0.5
    bias = random(outputs)
    plain = F.conv2d(
        x.double(), weight.double(), bias.double(), stride, padding
    )
    add = random(*plain.shape)
    matrix, packed = pack_matrix(weight), pack_channels(bias)
    sizes = (outputs, kernel, stride, padding)
    for y in layouts(x):
        got = dense_conv2d(y, matrix, packed, *sizes, 'relu', add)
        wanted = (plain.relu() + add).float()
        torch.testing.assert_close(got, wanted, **TOLERANCE)
        assert got.is_contiguous(memory_format=torch.channels_last)
    got = dense_conv2d(x, matrix, None, *sizes, 'silu')
    wanted = F.silu(plain - bias.double()[:, None, None]).float()
    torch.testing.assert_close(got, wanted, **TOLERANCE)


HALVED = [
    # batch, channels, height, width, outputs
    (1, 1, 1, 1, 1),
    (2, 3, 7, 5, 9),
    (1, 17, 2, 12, 33),
    (2, 24, 13, 30, 48),
    (1, 100, 10, 9, 50),
    # patches for several tasks, and more values than fit the cache at a time
    (3, 25, 32, 31, 50),
    (1, 700, 9, 6, 8),
]


@pytest.mark.parametrize('case', HALVED)
def test_halving(case, threads):
    batch, channels, height, width, outputs = case
    x = random(batch, channels, height, width)
    weight = random(outputs, channels, 3, 3) / (9 * channels) ** 0.5
    bias = random(outputs)
    plain = F.conv2d(x.double(), weight.double(), bias.double(), 2, 1)
    halved, packed = pack_halving(weight), pack_channels(bias)
    for y in layouts(x):
        got = halving_conv2d(y, halved, packed, outputs, 'relu')
        torch.testing.assert_close(got, plain.relu().float(), **TOLERANCE)
        assert got.is_contiguous(memory_format=torch.channels_last)
    got = halving_conv2d(x, halved, None, outputs)
    wanted = (plain - bias.double()[:, None, None]).float()
    torch.testing.assert_close(got, wanted, **TOLERANCE)


@pytest.mark.parametrize(
    ('shape', 'pack'),
    [
        ((1, 16, 1, 1), pack_matrix),
        ((3, 37, 5, 7), pack_matrix),
        ((2, 192, 14, 14), pack_matrix),
        ((1, 400, 4, 4), pack_matrix),
        ((1, 32, 1, 1), pack_strassen),
        ((3, 38, 5, 7), pack_strassen),
        ((2, 192, 14, 14), pack_strassen),
        ((1, 400, 4, 4), pack_strassen),
    ],
)
@pytest.mark.parametrize('surplus', [0, 3])
@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('shortcut', [False, True])
def test_feed_forward(shape, pack, surplus, filtered, shortcut, threads):
    channels = shape[1]
    # Strassen's algorithm takes an even number.
    hidden = 2 * channels + surplus * (1 + (pack is pack_strassen))
    x = random(*shape)
    weights = (
        random(hidden, channels, 1, 1) / channels**0.5,
        random(channels, hidden, 1, 1) / hidden**0.5,
    )
    biases = random(hidden), random(channels)
    parts = [
        part
        for weight, bias in zip(weights, biases)
        for part in (pack(weight), pack_channels(bias))
    ]
    z, kwargs = x.double(), {}
    if filtered:
        taps, offset = random(channels, 1, 3, 3) / 3, random(channels, seed=1)
        z = F.conv2d(
            z, taps.double(), offset.double(), padding=1, groups=channels
        )
        kwargs = dict(
            filter=pack_depthwise(taps), filter_bias=pack_channels(offset)
        )
    y = z
    for weight, bias, act in zip(weights, biases, (F.relu, z.add)):
        y = act(F.conv2d(y, weight.double(), bias.double()))
    if shortcut:
        kwargs['add'] = random(*shape, seed=2)
        y = y + kwargs['add'].double()
    for variant in layouts(x):
        got = feed_forward(variant, *parts, hidden, **kwargs)
        torch.testing.assert_close(got, y.float(), **TOLERANCE)


POINTWISE = [
    # batch, channels, height, width, outputs, stride, padding
    (1, 32, 1, 1, 32, (1, 1), (0, 0)),
    (2, 34, 3, 3, 40, (1, 1), (0, 0)),
    (3, 200, 7, 7, 200, (1, 1), (0, 0)),
    (4, 36, 5, 6, 16, (2, 1), (1, 0)),
    (2, 64, 9, 7, 85, (1, 1), (0, 0)),
    # pairs for several tasks, and weights that are fetched ahead
    (5, 376, 9, 9, 400, (1, 1), (0, 0)),
    # halves with more values than fit the cache at a time
    (1, 1000, 5, 4, 70, (1, 1), (0, 0)),
]


@pytest.mark.parametrize('case', POINTWISE)
def test_strassen(case, threads):
    batch, channels, height, width, outputs, stride, padding = case
    x = random(batch, channels, height, width)
    weight = random(outputs, channels, 1, 1) / channels**0.5
    bias = random(outputs)
    plain = F.conv2d(
        x.double(), weight.double(), bias.double(), stride, padding
    )
    add = random(*plain.shape)
    tiles, packed = pack_strassen(weight), pack_channels(bias)
    sizes = (outputs, (1, 1), stride, padding)
    for y in layouts(x):
        got = dense_conv2d(y, tiles, packed, *sizes, 'relu', add)
        wanted = (plain.relu() + add).float()
        torch.testing.assert_close(got, wanted, **TOLERANCE)
    got = dense_conv2d(x, tiles, None, *sizes, 'silu')
    wanted = F.silu(plain - bias.double()[:, None, None]).float()
    torch.testing.assert_close(got, wanted, **TOLERANCE)


def test_strassen_keeps_images_apart():
    """A damaged image costs its own results, on maps of odd sides too."""
    x, weight = random(4, 64, 3, 3), random(64, 64, 1, 1) / 8
    tiles = pack_strassen(weight)
    wanted = [
        dense_conv2d(x, tiles, None, 64),
        feed_forward(x, tiles, None, tiles, None, 64),
    ]
    x[1] = float('nan')
    x[2, :, 1] = float('inf')
    got = [
        dense_conv2d(x, tiles, None, 64),
        feed_forward(x, tiles, None, tiles, None, 64),
    ]
    for a, b in zip(got, wanted):
        assert torch.equal(a[[0, 3]], b[[0, 3]])
        assert a[1].isnan().all()


def test_products_do_not_depend_on_threads():
    x, weight = random(1, 448, 7, 7), random(448, 448, 1, 1)
    tiles = pack_strassen(weight)
    matrix, kernel = pack_matrix(weight), pack_halving(random(40, 448, 3, 3))
    taps = pack_depthwise(random(448, 1, 3, 3))
    first = None
    before = torch.get_num_threads()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results = (
            dense_conv2d(x, matrix, None, 448),
            halving_conv2d(x, kernel, None, 40),
            feed_forward(
                x, matrix, None, matrix, None, 448, filter=taps, add=x
            ),
            dense_conv2d(x, tiles, None, 448),
            feed_forward(x, tiles, None, tiles, None, 448, filter=taps, add=x),
        )
        first = first or results
        assert all(map(torch.equal, first, results))
    torch.set_num_threads(before)


def test_products_check_their_arguments():
    x, weight = random(1, 20, 4, 4), random(40, 20, 1, 1)
    matrix, bias = pack_matrix(weight), pack_channels(random(40))
    with pytest.raises(TypeError, match='x must be float32'):
        dense_conv2d(x.double(), matrix, bias, 40)
    with pytest.raises(ValueError, match=r'\(blocks, 3 \* 3 \* channels'):
        dense_conv2d(x, matrix, bias, 40, (3, 3))
    with pytest.raises(ValueError, match='weight is for 5 channels'):
        dense_conv2d(x, matrix, bias, 40, (2, 2))
    with pytest.raises(ValueError, match='kernel_size must be from 1'):
        dense_conv2d(x, matrix, bias, 40, (0, 1))
    with pytest.raises(ValueError, match='channels must fit the 3 blocks'):
        dense_conv2d(x, matrix, bias, 64)
    with pytest.raises(ValueError, match='bias must have the 48 channels'):
        dense_conv2d(x, matrix, random(40), 40)
    with pytest.raises(ValueError, match='stride must be positive'):
        dense_conv2d(x, matrix, bias, 40, stride=(0, 1))
    with pytest.raises(ValueError, match='too small for kernel_size'):
        dense_conv2d(x, pack_matrix(random(40, 20, 5, 5)), bias, 40, (5, 5))
    with pytest.raises(ValueError, match='two numbers each'):
        dense_conv2d(x, matrix, bias, 40, (1,))
    with pytest.raises(ValueError, match='add must have the shape'):
        dense_conv2d(x, matrix, bias, 40, add=x)
    with pytest.raises(ValueError, match='hidden must fit the 3 blocks'):
        feed_forward(x, matrix, bias, matrix, None, 80)
    with pytest.raises(ValueError, match='second must be contiguous'):
        feed_forward(x, matrix, bias, matrix, None, 40)
    with pytest.raises(ValueError, match='activation must be none'):
        feed_forward(x, matrix, bias, matrix, None, 40, 'gelu')
    back = pack_matrix(random(20, 40, 1, 1))
    taps = pack_depthwise(random(20, 1, 3, 3))
    with pytest.raises(ValueError, match=r'filter must be \[3, 3, 32\]'):
        feed_forward(x, matrix, bias, back, None, 40, filter=taps[:, :2])
    with pytest.raises(ValueError, match='filter_bias must stand beside'):
        feed_forward(x, matrix, bias, back, None, 40, filter_bias=bias)
    with pytest.raises(ValueError, match='add must have the shape'):
        feed_forward(x, matrix, bias, back, None, 40, add=x[:, :1])


def test_strassen_checks_its_arguments():
    x, weight = random(1, 40, 4, 4), random(40, 40, 1, 1)
    tiles = pack_strassen(weight)
    with pytest.raises(ValueError, match=r'weight must .*channels, 1, 1\)'):
        pack_strassen(random(40, 40, 3, 3))
    for channels in (30, 41):
        with pytest.raises(ValueError, match=f'even .* got {channels}'):
            pack_strassen(random(40, channels, 1, 1))
    with pytest.raises(ValueError, match='channels must fit the 9 blocks'):
        dense_conv2d(x, tiles, None, 64)
    with pytest.raises(ValueError, match=r'\(blocks, 1 \* 2 \* channels'):
        dense_conv2d(x, tiles[:, :19].contiguous(), None, 40, (1, 2))
    with pytest.raises(ValueError, match='bias must have the 48 channels'):
        dense_conv2d(x, tiles, random(40), 40)
    with pytest.raises(ValueError, match='second must .* as pack_strassen'):
        feed_forward(x, tiles, None, pack_matrix(weight), None, 40)
    with pytest.raises(ValueError, match='hidden must be even .* got 41'):
        feed_forward(x, tiles, None, tiles, None, 41)


def test_halving_checks_its_arguments():
    x, weight = random(1, 20, 4, 4), random(40, 20, 3, 3)
    packed = pack_halving(weight)
    with pytest.raises(ValueError, match=r'weight must .*channels, 3, 3\)'):
        pack_halving(random(40, 20, 1, 1))
    with pytest.raises(ValueError, match=r'\(blocks, 500, 16\)'):
        halving_conv2d(x, pack_matrix(weight), None, 40)
    with pytest.raises(ValueError, match='channels must fit the 3 blocks'):
        halving_conv2d(x, packed, None, 64)
    with pytest.raises(ValueError, match='bias must have the 48 channels'):
        halving_conv2d(x, packed, random(40), 40)
    with pytest.raises(ValueError, match='a height and a width'):
        halving_conv2d(x[:, :, :0], packed, None, 40)
    with pytest.raises(TypeError, match='x must be float32'):
        halving_conv2d(x.double(), packed, None, 40)


@pytest.mark.parametrize('channels', [8, 37, 320])
def test_norm_of_channels_that_are_alike(channels):
    # The rounding of their mean would be all that is left of them.
    x = (
        torch.full((1, 3, channels), 1.1)
        * torch.tensor([1, 3.3, 1e4])[:, None]
    )
    bias = random(channels)
    got = gated_layer_norm(x, x, torch.ones(channels), bias, 1e-12)
    torch.testing.assert_close(got, bias * F.silu(x))


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
    matrix = pack_matrix(random(8, 16, 1, 1))
    assert dense_conv2d(x, matrix, None, 8).shape == (0, 8, 4, 4)
    halved = pack_halving(random(8, 16, 3, 3))
    assert halving_conv2d(x, halved, None, 8).shape == (0, 8, 2, 2)

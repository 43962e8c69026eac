"""The operators of the deployed form agree with PyTorch's in float64."""

import pytest
import selective_scan as ss
import torch
import torch.nn.functional as F
from cases import at_memory_end, random_settings, strided
from hypothesis import given
from hypothesis import strategies as st
from selective_scan import inference as si

# One float32 rounding for each of up to 200 products of about 1.
TOLERANCE = dict(rtol=1e-5, atol=2e-5)
ACTIVATIONS = {'none': lambda x: x, 'relu': F.relu, 'silu': F.silu}
acts = st.sampled_from(list(ACTIVATIONS))
sizes = st.one_of(st.sampled_from([1, 2, 15, 16, 17]), st.integers(1, 40))
counts = st.sampled_from([1, 1, 2, 3])
pytestmark = pytest.mark.usefixtures('variant', 'threads')


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


def pack(values):
    return None if values is None else si.pack_channels(values)


def per_channel(values, default):
    return default if values is None else values.double()[:, None, None]


def depthwise(x, weight, bias=None, act='none', scale=None, shift=None):
    y = F.conv2d(
        x.double(),
        weight.double(),
        padding=weight.shape[-1] // 2,
        groups=len(weight),
    )
    y = ACTIVATIONS[act](y + per_channel(bias, 0.0))
    return y * per_channel(scale, 1.0) + per_channel(shift, 0.0)


def wavelet(x, weight):
    return ss.wavelet_conv2d_reference(x.double(), weight.double())


def dense(x, weight, bias, stride, padding, act, add):
    bias = None if bias is None else bias.double()
    y = F.conv2d(x.double(), weight.double(), bias, stride, padding)
    y = ACTIVATIONS[act](y)
    return y if add is None else y + add.double()


def feed_forward(x, first, second, biases, act, taps, offset, add):
    z = x.double() if taps is None else depthwise(x, taps, offset)
    y = dense(z, first, biases[0], 1, 0, act, None)
    y = z + dense(y, second, biases[1], 1, 0, 'none', None)
    return y if add is None else y + add.double()


def close(got, wanted):
    torch.testing.assert_close(got, wanted.float(), **TOLERANCE)
    assert got.is_contiguous(memory_format=torch.channels_last)


@st.composite
def maps(draw, low=1, high=20):
    side = st.integers(low, high)
    shape = draw(st.integers(0, 3)), draw(sizes), draw(side), draw(side)
    x = random(*shape, seed=draw(st.integers(0, 9)))
    return at_memory_end(draw(strided(x)))


def maybe(*shape):
    return st.sampled_from([None, random(*shape, seed=1)])


@random_settings(40)
@given(st.data())
def test_depthwise_at_random(data):
    x = data.draw(maps())
    side = data.draw(st.sampled_from([1, 3, 5, 7]))
    weight = random(x.shape[1], 1, side, side)
    bias, scale = (data.draw(maybe(x.shape[1])) for _ in range(2))
    shift = None if scale is None else data.draw(maybe(x.shape[1]))
    act = data.draw(acts)
    torch.set_num_threads(data.draw(counts))
    got = si.depthwise_conv2d(
        x, si.pack_depthwise(weight), pack(bias), act, pack(scale), pack(shift)
    )
    close(got, depthwise(x, weight, bias, act, scale, shift))


@random_settings(30)
@given(st.data())
def test_wavelet_at_random(data):
    x = data.draw(maps())
    side = data.draw(st.sampled_from([1, 3, 5, 7]))
    weight = random(4 * x.shape[1], 1, side, side)
    torch.set_num_threads(data.draw(counts))
    close(si.wavelet_conv2d(x, si.pack_wavelet(weight)), wavelet(x, weight))


@random_settings(60)
@given(st.data())
def test_dense_at_random(data):
    kernel, stride, padding = (
        [data.draw(st.integers(low, high)) for _ in range(2)]
        for low, high in ((1, 4), (1, 3), (0, 3))
    )
    x = data.draw(maps(4, 15))
    outputs, act = data.draw(sizes), data.draw(acts)
    depth = x.shape[1] * kernel[0] * kernel[1]
    weight = random(outputs, x.shape[1], *kernel) / depth**0.5
    bias = data.draw(maybe(outputs))
    plain = dense(x, weight, bias, stride, padding, act, None)
    add = data.draw(maybe(*plain.shape))
    torch.set_num_threads(data.draw(counts))
    got = si.dense_conv2d(
        x,
        si.pack_matrix(weight),
        pack(bias),
        outputs,
        kernel,
        stride,
        padding,
        act,
        add,
    )
    close(got, plain if add is None else plain + add)


@random_settings(60)
@given(st.data())
def test_feed_forward_at_random(data):
    x = data.draw(maps(1, 9))
    channels, hidden, act = x.shape[1], data.draw(sizes), data.draw(acts)
    first = random(hidden, channels, 1, 1) / channels**0.5
    second = random(channels, hidden, 1, 1) / hidden**0.5
    biases = data.draw(maybe(hidden)), data.draw(maybe(channels))
    taps = data.draw(maybe(channels, 1, 3, 3))
    offset = None if taps is None else data.draw(maybe(channels))
    add = data.draw(maybe(*x.shape))
    torch.set_num_threads(data.draw(counts))
    got = si.feed_forward(
        x,
        si.pack_matrix(first),
        pack(biases[0]),
        si.pack_matrix(second),
        pack(biases[1]),
        hidden,
        act,
        None if taps is None else si.pack_depthwise(taps),
        pack(offset),
        add,
    )
    close(got, feed_forward(x, first, second, biases, act, taps, offset, add))


@pytest.mark.parametrize('shape', [(2, 64, 14, 14), (1, 17, 150, 83)])
def test_large_maps(shape):
    """Strips of rows, and slices of channels read in place."""
    x, channels = random(*shape), shape[1]
    weight, bands = random(channels, 1, 7, 7), random(4 * channels, 1, 3, 3)
    plain, waved = depthwise(x, weight), wavelet(x, bands)
    for y in layouts(x):
        close(si.depthwise_conv2d(y, si.pack_depthwise(weight)), plain)
        close(si.wavelet_conv2d(y, si.pack_wavelet(bands)), waved)


PRODUCTS = [
    # batch, channels, height, width, outputs, kernel, stride, padding
    # more values than fit the cache at a time, in one run and in several
    (2, 500, 5, 5, 33, (1, 1), (1, 1), (0, 0)),
    (1, 150, 6, 6, 20, (3, 3), (2, 2), (1, 1)),
    (1, 130, 5, 6, 20, (5, 5), (1, 1), (2, 2)),
    # rows for several tasks, and weights that are fetched ahead
    (3, 40, 21, 17, 30, (3, 1), (1, 2), (1, 0)),
    (5, 376, 9, 9, 400, (1, 1), (1, 1), (0, 0)),
]


@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('case', PRODUCTS)
def test_large_products(case, count):
    torch.set_num_threads(count)
    batch, channels, height, width, outputs, kernel, stride, padding = case
    x = random(batch, channels, height, width)
    depth = channels * kernel[0] * kernel[1]
    weight, bias = random(outputs, channels, *kernel), random(outputs)
    weight = weight / depth**0.5
    plain = dense(x, weight, bias, stride, padding, 'relu', None)
    matrix = si.pack_matrix(weight)
    sizes = outputs, kernel, stride, padding, 'relu'
    for y in layouts(x):
        close(si.dense_conv2d(y, matrix, pack(bias), *sizes), plain)


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize('shape', [(2, 192, 14, 14), (1, 400, 4, 4)])
@pytest.mark.parametrize('around', [False, True])
def test_large_feed_forward(shape, around, count):
    """Rows enough for both products together, and too few for that."""
    torch.set_num_threads(count)
    channels, hidden, x = shape[1], 2 * shape[1] + 3, random(*shape)
    first = random(hidden, channels, 1, 1) / channels**0.5
    second = random(channels, hidden, 1, 1) / hidden**0.5
    biases = random(hidden), random(channels)
    taps = random(channels, 1, 3, 3) / 3 if around else None
    add = random(*shape, seed=2) if around else None
    plain = feed_forward(x, first, second, biases, 'relu', taps, None, add)
    parts = [
        part
        for weight, bias in zip((first, second), biases)
        for part in (si.pack_matrix(weight), pack(bias))
    ]
    kwargs = dict(filter=si.pack_depthwise(taps), add=add) if around else {}
    for y in layouts(x):
        close(si.feed_forward(y, *parts, hidden, **kwargs), plain)


def test_results_do_not_depend_on_threads():
    x = random(1, 448, 7, 7)
    matrix = si.pack_matrix(random(448, 448, 1, 1))
    taps = si.pack_depthwise(random(448, 1, 3, 3))
    parts = matrix, None, matrix, None, 448
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(
            (
                si.dense_conv2d(x, matrix, None, 448),
                si.feed_forward(x, *parts, filter=taps, add=x),
                si.depthwise_conv2d(x, taps),
            )
        )
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))


def test_a_damaged_image_spoils_no_other():
    x = random(3, 40, 5, 4)
    matrix = si.pack_matrix(random(40, 40, 1, 1))
    taps = si.pack_depthwise(random(40, 1, 3, 3))

    def run():
        return (
            si.dense_conv2d(x, matrix, None, 40),
            si.feed_forward(x, matrix, None, matrix, None, 40, filter=taps),
            si.wavelet_conv2d(x, si.pack_wavelet(random(160, 1, 3, 3))),
        )

    wanted = run()
    x[1] = float('nan')
    for a, b in zip(run(), wanted, strict=True):
        assert torch.equal(a[::2], b[::2])
        assert a[1].isnan().all()


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_opcheck(layout):
    ops, check = torch.ops.selective_scan, torch.library.opcheck
    x = random(2, 20, 5, 7)
    if layout == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    taps = si.pack_depthwise(random(20, 1, 3, 3))
    check(ops.depthwise_conv2d.default, (x, taps))
    bands = si.pack_wavelet(random(80, 1, 3, 3))
    check(ops.packed_wavelet_conv2d.default, (x, bands))
    matrix = si.pack_matrix(random(24, 20, 3, 3))
    sizes = 24, (3, 3), (2, 1), (1, 0), 'relu', None
    check(ops.dense_conv2d.default, (x, matrix, None, *sizes))
    first = si.pack_matrix(random(40, 20, 1, 1))
    second = si.pack_matrix(random(20, 40, 1, 1))
    parts = x, first, None, second, None, 40, 'relu', taps, random(32), x
    check(ops.feed_forward.default, parts)

"""The operators of the deployed form agree with PyTorch's in float64."""

import pytest
import selective_scan as ss
import torch
import torch.nn.functional as F
from cases import (
    INFERENCE,
    at_memory_end,
    lay_out_map,
    random_settings,
    strided,
)
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


def pack(values):
    return None if values is None else si.pack_channels(values)


def double(x):
    return None if x is None else x.double()


def depthwise(x, weight, bias=None, act='none', scale=None, shift=None):
    sizes = 1, weight.shape[-1] // 2
    y = dense(x, weight, bias, *sizes, act, groups=len(weight))
    if scale is not None:
        y = y * scale.double()[:, None, None]
    return y if shift is None else y + shift.double()[:, None, None]


def dense(x, weight, bias, stride, padding, act, add=None, groups=1):
    sizes = dict(stride=stride, padding=padding, groups=groups)
    y = F.conv2d(x.double(), weight.double(), double(bias), **sizes)
    y = ACTIVATIONS[act](y)
    return y if add is None else y + add.double()


def feed_forward(x, first, second, biases, act, taps, offset, add):
    z = x.double() if taps is None else depthwise(x, taps, offset)
    y = dense(z, first, biases[0], 1, 0, act)
    y = z + dense(y, second, biases[1], 1, 0, 'none')
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
def test_filters_at_random(data):
    x = data.draw(maps())
    channels, side = x.shape[1], data.draw(st.sampled_from([1, 3, 5, 7]))
    weight, bands = (random(n * channels, 1, side, side) for n in (1, 4))
    bias, scale = (data.draw(maybe(channels)) for _ in range(2))
    shift = None if scale is None else data.draw(maybe(channels))
    act = data.draw(acts)
    torch.set_num_threads(data.draw(counts))
    packed = si.pack_depthwise(weight), pack(bias)
    got = si.depthwise_conv2d(x, *packed, act, pack(scale), pack(shift))
    close(got, depthwise(x, weight, bias, act, scale, shift))
    plain = ss.wavelet_conv2d_reference(x.double(), bands.double())
    close(si.wavelet_conv2d(x, si.pack_wavelet(bands)), plain)


@random_settings(60)
@given(st.data())
def test_dense_at_random(data):
    """Rows for one task and for several, columns of up to three blocks."""
    kernel, stride, padding = (
        [data.draw(st.integers(low, high)) for _ in range(2)]
        for low, high in ((1, 4), (1, 3), (0, 3))
    )
    x = data.draw(maps(4, 15))
    outputs, act = data.draw(sizes), data.draw(acts)
    depth = x.shape[1] * kernel[0] * kernel[1]
    weight = random(outputs, x.shape[1], *kernel) / depth**0.5
    bias = data.draw(maybe(outputs))
    plain = dense(x, weight, bias, stride, padding, act)
    add = data.draw(maybe(*plain.shape))
    torch.set_num_threads(data.draw(counts))
    choices = outputs, kernel, stride, padding, act, add
    got = si.dense_conv2d(x, si.pack_matrix(weight), pack(bias), *choices)
    close(got, plain if add is None else plain + add)


@random_settings(80)
@given(st.data())
def test_feed_forward_at_random(data):
    """Rows enough for both products together, and too few for that."""
    x = data.draw(maps(1, 12))
    channels, hidden, act = x.shape[1], data.draw(sizes), data.draw(acts)
    first = random(hidden, channels, 1, 1) / channels**0.5
    second = random(channels, hidden, 1, 1) / hidden**0.5
    biases = data.draw(maybe(hidden)), data.draw(maybe(channels))
    taps = data.draw(maybe(channels, 1, 3, 3))
    offset = None if taps is None else data.draw(maybe(channels))
    add = data.draw(maybe(*x.shape))
    torch.set_num_threads(data.draw(counts))
    parts = [
        part
        for weight, bias in zip((first, second), biases)
        for part in (si.pack_matrix(weight), pack(bias))
    ]
    filter = None if taps is None else si.pack_depthwise(taps)
    got = si.feed_forward(x, *parts, hidden, act, filter, pack(offset), add)
    close(got, feed_forward(x, first, second, biases, act, taps, offset, add))


@pytest.mark.parametrize('shape', [(2, 64, 14, 14), (1, 17, 150, 83)])
def test_large_maps(shape):
    """Strips of rows, and slices of channels read in place."""
    x, channels = random(*shape), shape[1]
    weight, bands = random(channels, 1, 7, 7), random(4 * channels, 1, 3, 3)
    plain = depthwise(x, weight)
    waved = ss.wavelet_conv2d_reference(x.double(), bands.double())
    for layout in ('contiguous', 'channels_last', 'slice_last'):
        y = lay_out_map(x, layout)
        close(si.depthwise_conv2d(y, si.pack_depthwise(weight)), plain)
        close(si.wavelet_conv2d(y, si.pack_wavelet(bands)), waved)


def test_results_do_not_depend_on_threads():
    x = random(1, 448, 7, 7)
    matrix = si.pack_matrix(random(448, 448, 1, 1))
    taps = si.pack_depthwise(random(448, 1, 3, 3))
    parts = matrix, None, matrix, None, 448

    def run(count):
        torch.set_num_threads(count)
        return (
            si.dense_conv2d(x, matrix, None, 448),
            si.feed_forward(x, *parts, filter=taps, add=x),
            si.depthwise_conv2d(x, taps),
        )

    wanted = run(1)
    for count in (2, 5):
        assert all(map(torch.equal, run(count), wanted))


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


@pytest.mark.parametrize('name', INFERENCE)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_opcheck(name, layout):
    case = dict(INFERENCE[name])
    case['x'] = lay_out_map(case['x'], layout)
    operator = getattr(torch.ops.selective_scan, name).default
    torch.library.opcheck(operator, (), case)

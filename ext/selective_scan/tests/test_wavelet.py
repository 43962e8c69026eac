"""wavelet_conv2d against PyTorch's convolutions in float64."""

import pytest
import selective_scan as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import MAP_LAYOUTS, check, wavelet_case
from scan_cases import TOLERANCE, devices

ops = torch.ops.selective_scan


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', MAP_LAYOUTS)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('side', [1, 3, 5, 7, 9])
def test_forward_and_gradients(side, dtype, layout, device):
    """Odd sides, channels that fill no block, maps of more than one tile."""
    case = wavelet_case(2, 19, 21, 36, side, dtype, layout, device)
    y = check('wavelet_conv2d', case, layout)['y']
    last = layout in ('channels_last', 'slice_last')
    memory_format = torch.channels_last if last else torch.contiguous_format
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (8, 1), (2, 2), (50, 84)])
def test_sizes(size, device):
    for layout in ('contiguous', 'channels_last'):
        case = wavelet_case(2, 33, *size, 7, layout=layout, device=device)
        check('wavelet_conv2d', case)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 36),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    side=st.sampled_from([1, 3, 5, 7]),
    dtype=st.sampled_from(list(TOLERANCE)),
    layouts=st.tuples(*[st.sampled_from(MAP_LAYOUTS)] * 2),
)
def test_random_shapes(batch, channels, size, side, dtype, layouts):
    case = wavelet_case(batch, channels, *size, side, dtype, layouts[0])
    check('wavelet_conv2d', case, layouts[1])


def test_scale_may_be_flat_or_absent():
    case = wavelet_case()
    scale = case.pop('scale')
    y = ss.wavelet_conv2d(**case, scale=scale)
    assert torch.equal(y, ss.wavelet_conv2d(**case, scale=scale.flatten()))
    case['weight'] = case['weight'] * scale.view(-1, 1, 1, 1)
    assert torch.equal(y, ss.wavelet_conv2d(**case))


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'slice'])
def test_operator(layout, device):
    case = wavelet_case(2, 5, 3, 4, layout=layout, device=device)
    x, weight = case['x'], case['weight']
    leaves = x.requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(ops.wavelet_conv2d.default, leaves)
    torch.library.opcheck(
        ops.wavelet_conv2d_backward.default,
        (torch.randn_like(x), x.detach(), weight.detach()),
    )
    pixel = wavelet_case(2, 5, 1, 1, layout=layout, device=device)['x']
    torch.library.opcheck(ops.wavelet_conv2d.default, (pixel, weight))


def test_errors_name_the_argument():
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(12, 1, 3, 3)
    for wrong in (weight[:8], weight[..., :2], weight[:, 0]):
        with pytest.raises(ValueError, match='weight must'):
            ss.wavelet_conv2d(x, wrong)
    with pytest.raises(ValueError, match='x must'):
        ss.wavelet_conv2d(x[0], weight)
    with pytest.raises(TypeError, match='x must'):
        ss.wavelet_conv2d(x.int(), weight)
    with pytest.raises(ValueError, match='grad must'):
        ops.wavelet_conv2d_backward(x[:1], x, weight)

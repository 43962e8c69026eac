"""wavelet_conv2d and gated_layer_norm against PyTorch's in float64."""

import pytest
import selective_scan as ss
import torch
from cases import (
    MAP_LAYOUTS,
    TOKEN_LAYOUTS,
    TOLERANCE,
    check,
    devices,
    norm_case,
    random_settings,
    wavelet_case,
)
from hypothesis import given
from hypothesis import strategies as st

every_device = pytest.mark.parametrize('device', devices())
dtypes = pytest.mark.parametrize('dtype', list(TOLERANCE))


@every_device
@dtypes
@pytest.mark.parametrize('layout', MAP_LAYOUTS)
@pytest.mark.parametrize('side', [1, 3, 5, 7, 9])
def test_wavelet(side, dtype, layout, device):
    """Odd sides, channels that fill no block, maps of more than one tile."""
    case = wavelet_case(2, 19, 21, 36, side, dtype, layout, device)
    y = check('wavelet_conv2d', case, layout)['y']
    last = layout in ('channels_last', 'slice_last')
    memory_format = torch.channels_last if last else torch.contiguous_format
    assert y.is_contiguous(memory_format=memory_format)


@every_device
@dtypes
@pytest.mark.parametrize('x_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('z_layout', TOKEN_LAYOUTS)
def test_norm(dtype, x_layout, z_layout, device):
    """Channels and tokens that fill no vector, layouts that differ."""
    case = norm_case(3, 83, 37, dtype, (x_layout, z_layout), device)
    y = check('gated_layer_norm', case, z_layout)['y']
    last = x_layout in ('channels_last', 'half')
    assert (y.mT if last else y).is_contiguous()


@every_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_sizes(layout, device):
    where = dict(layout=layout, device=device)
    for size in ((1, 1), (1, 9), (8, 1), (2, 2), (50, 84)):
        check('wavelet_conv2d', wavelet_case(2, 33, *size, 7, **where))
    for size in ((0, 4, 3), (2, 4, 0), (1, 4, 1), (5, 544, 1), (2, 320, 1050)):
        check('gated_layer_norm', norm_case(*size, **where), layout)


@random_settings(40)
@given(
    sizes=st.tuples(
        st.integers(0, 3), st.integers(1, 36), *[st.integers(1, 20)] * 2
    ),
    side=st.sampled_from([1, 3, 5, 7]),
    dtype=st.sampled_from(list(TOLERANCE)),
    layouts=st.tuples(*[st.sampled_from(MAP_LAYOUTS)] * 2),
)
def test_wavelet_at_random(sizes, side, dtype, layouts):
    case = wavelet_case(*sizes, side, dtype, layouts[0])
    check('wavelet_conv2d', case, layouts[1])


def test_scale_may_be_flat_or_absent():
    case = wavelet_case()
    scale = case.pop('scale')
    y = ss.wavelet_conv2d(**case, scale=scale)
    assert torch.equal(y, ss.wavelet_conv2d(**case, scale=scale.flatten()))
    case['weight'] = case['weight'] * scale.view(-1, 1, 1, 1)
    assert torch.equal(y, ss.wavelet_conv2d(**case))


def test_one_channel_is_its_bias():
    """Its gradient is a difference of equal terms of some hundreds."""
    case = norm_case(2, 1, 5)
    leaves = {k: v.requires_grad_() for k, v in case.items()}
    y = ss.gated_layer_norm(**leaves)
    wanted = case['bias'] * torch.nn.functional.silu(case['z'])
    torch.testing.assert_close(y, wanted)
    y.sum().backward()
    assert case['x'].grad.abs().max() < 1e-3


@every_device
def test_values_far_away(device):
    """Neither lose variance nor, as gates, overflow."""
    case = norm_case(2, 64, 5, device=device)
    case['x'] = case['x'] + 3000
    case['z'] = case['z'] * 100
    check('gated_layer_norm', case)

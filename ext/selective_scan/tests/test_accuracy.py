"""Outputs and gradients of both operators against the float64 reference."""

import pytest
import selective_scan as ss
import torch
from hypothesis import given
from hypothesis import strategies as st
from scan_cases import (
    TOLERANCE,
    assert_close,
    at_memory_end,
    compare,
    devices,
    fused_case,
    lay_out,
    plain_case,
    random_settings,
    run_with_grads,
    strided,
)

LENGTHS = [1, 2, 7, 31, 32, 33, 49, 63, 196, 257, 1024]
every_device = pytest.mark.parametrize('device', devices())


def compare_plain(case, dtype=torch.float32, **flags):
    flags = {'delta_softplus': True, **flags}
    scans = ss.selective_scan, ss.selective_scan_reference
    return compare(*scans, case, dtype, **flags)


def compare_fused(case, dtype=torch.float32, **flags):
    scans = ss.bidirectional_scan, ss.bidirectional_scan_reference
    return compare(*scans, case, dtype, **flags)


def check_strided(data, scans, case, dtype, low, **flags):
    """Compare on any strides, in memory that ends with the last value."""
    for name in low:
        case[name] = at_memory_end(data.draw(strided(case[name])))
    grad = torch.randn(case['u'].shape).to(dtype)
    grad = at_memory_end(data.draw(strided(grad)))
    actual = run_with_grads(scans[0], case, grad, **flags)
    exact = {k: v.double() for k, v in case.items()}
    wanted = run_with_grads(scans[1], exact, grad.double(), **flags)
    for name, value in actual.items():
        assert value.dtype == (dtype if name == 'y' else case[name].dtype)
        if wanted[name] is None:  # the reference never reached it
            wanted[name] = torch.zeros_like(value)
        assert_close(value, wanted[name], dtype, name)


@random_settings(60)
@given(st.data())
def test_selective_scan_at_random(data):
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    case = plain_case(
        data.draw(st.integers(0, 3)),
        groups * data.draw(st.integers(1, 24)),
        data.draw(st.integers(1, 40)),
        data.draw(st.integers(1, 4)),
        groups,
        dtype=dtype,
        seed=data.draw(st.integers(0, 9)),
    )
    for name in ('D', 'delta_bias'):
        if data.draw(st.booleans()):
            del case[name]
    check_strided(
        data,
        (ss.selective_scan, ss.selective_scan_reference),
        case,
        dtype,
        ('u', 'delta', 'B', 'C'),
        delta_softplus=True,
        reverse=data.draw(st.booleans()),
    )


@random_settings(60)
@given(st.data())
def test_bidirectional_scan_at_random(data):
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    case = fused_case(
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(1, 70)),
        data.draw(st.integers(1, 40)),
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 2)),
        dtype=dtype,
        seed=data.draw(st.integers(0, 9)),
    )
    scans = ss.bidirectional_scan, ss.bidirectional_scan_reference
    check_strided(data, scans, case, dtype, ('u', 'proj'))


@every_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
@pytest.mark.parametrize('dtype', list(TOLERANCE))
def test_dtypes_and_layouts(device, dtype, layout):
    where = dict(dtype=dtype, layout=layout, device=device)
    flags = dict(grad_layout=layout)
    case = plain_case(2, 20, 37, 2, 2, **where)
    assert compare_plain(case, dtype, **flags)['y'].dtype == dtype
    case = fused_case(2, 37, 35, rank=5, **where)
    assert compare_fused(case, dtype, **flags)['y'].dtype == dtype


@every_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('length', LENGTHS)
def test_lengths(device, length, layout):
    where = dict(layout=layout, device=device)
    compare_plain(plain_case(2, 5, length, **where), reverse=True)
    compare_fused(fused_case(1, 9, length, **where))


@every_device
@pytest.mark.parametrize('state', [1, 8, 16, 256])
@pytest.mark.parametrize('groups', [1, 4])
def test_states_and_groups(device, state, groups):
    compare_plain(plain_case(2, 12, 33, state, groups, device=device))
    if groups == 1:
        compare_fused(fused_case(2, 35, 33, state, rank=1, device=device))


@every_device
def test_long_sequence(device):
    """65x65 tokens, more than one chunk in every kernel."""
    compare_fused(fused_case(1, 5, 4225, state=2, device=device))


@every_device
@pytest.mark.parametrize('name', ['D', 'delta_bias'])
@pytest.mark.parametrize('softplus', [False, True])
def test_optional_arguments_absent(device, name, softplus):
    case = plain_case(2, 9, 19, device=device)
    del case[name]
    if not softplus:
        case['delta'] = case['delta'].abs() * 0.3
    compare_plain(case, delta_softplus=softplus)


@every_device
def test_decays_of_any_size(device):
    """exp(delta * A) of -1e3 and far below gives 0, never NaN."""
    case = plain_case(1, 8, 40, device=device)
    case['A'] = -(10.0 ** torch.arange(8.0, device=device))[:, None]
    compare_plain(case)
    case = plain_case(1, 5, 20, device=device)
    case['A'] = torch.tensor([[0.0], [0.1], [0.2], [-0.1], [0.0]]).to(device)
    compare_plain(case)


@every_device
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_softplus_over_its_range(device, dtype):
    """From where softplus is exp(x) to where it is x."""
    case = plain_case(1, 3, 121, dtype=dtype, device=device, optional=False)
    ramp = torch.linspace(-60, 60, 121, dtype=dtype, device=device)
    case['delta'] = ramp.expand(1, 3, 121)
    compare_plain(case, dtype)
    # At x = -15, softplus is 3e-7: no absolute error may hide it.
    case = plain_case(1, 4, 1, dtype=dtype, device=device, optional=False)
    case['delta'] = torch.full_like(case['delta'], -15.0)
    y = ss.selective_scan(**case, delta_softplus=True)
    exact = {k: v.double() for k, v in case.items()}
    wanted = ss.selective_scan_reference(**exact, delta_softplus=True)
    torch.testing.assert_close(y.double(), wanted, rtol=2e-6, atol=0)


@every_device
def test_half_precision_survives_extreme_inputs(device):
    """States beyond float16's range, results within it."""
    case = plain_case(1, 8, 64, dtype=torch.float16, device=device)
    values = dict(u=6e4, B=100.0, C=1e-3, delta=0.05, A=-1.0, D=0.0)
    for name, value in values.items():
        case[name] = torch.full_like(case[name], value)
    del case['delta_bias']
    y = ss.selective_scan(**case)
    wanted = ss.selective_scan_reference(
        **{k: v.cpu().double() for k, v in case.items()}
    )
    fits = wanted.abs() < 65504
    assert fits.any()
    assert y.cpu()[fits].isfinite().all()


@every_device
def test_image_maps_are_taken_in_place(device):
    """A channels_last image viewed as tokens: y has the same strides."""
    image = torch.randn(2, 12, 5, 7).to(device)
    image = image.to(memory_format=torch.channels_last)
    case = fused_case(2, 12, 35, device=device)
    case['u'] = image.flatten(2)
    case['proj'] = lay_out(case['proj'], 'channels_last')
    actual = compare_fused(case, grad_layout='channels_last')
    assert actual['y'].stride() == case['u'].stride()
    assert actual['u'].stride() == case['u'].stride()
    assert actual['proj'].stride() == case['proj'].stride()


@every_device
@pytest.mark.parametrize('shape', [(0, 5, 4), (2, 5, 0), (2, 0, 4), (0, 0, 0)])
def test_empty(device, shape):
    grad = torch.zeros(shape, device=device)
    case = plain_case(*shape, state=2, device=device)
    got = run_with_grads(ss.selective_scan, case, grad)
    assert got['y'].shape == shape
    assert got['A'].abs().sum() == 0
    case = fused_case(*shape, device=device)
    got = run_with_grads(ss.bidirectional_scan, case, grad)
    assert got['y'].shape == shape
    assert got['proj'].shape == case['proj'].shape
    assert got['D'].abs().sum() == 0


def test_the_tolerances_catch_a_wrong_gradient():
    """A gradient off by a percent must not pass."""
    y = ss.bidirectional_scan(**fused_case(2, 40, 40))
    with pytest.raises(AssertionError, match='error'):
        assert_close(y * 1.01, y, torch.float32)

"""Outputs and gradients of both operators against the float64 reference."""

from functools import partial

import pytest
import selective_scan as ss
import torch
from cases import (
    TOLERANCE,
    at_memory_end,
    check,
    devices,
    fused_case,
    plain_case,
    random_settings,
    strided,
)
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = [1, 2, 7, 31, 32, 33, 49, 63, 196, 257, 1024, 4225]
every_device = pytest.mark.parametrize('device', devices())
check_plain = partial(check, 'selective_scan', delta_softplus=True)
check_fused = partial(check, 'bidirectional_scan')


def place(data, tensor):
    return at_memory_end(data.draw(strided(tensor)))


@random_settings(60)
@given(st.data())
def test_selective_scan_at_random(data):
    batch, per_group, length, state, groups = (
        data.draw(st.integers(low, high))
        for low, high in ((0, 3), (1, 24), (1, 40), (1, 4), (1, 3))
    )
    sizes = batch, groups * per_group, length, state, groups
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    case = plain_case(*sizes, dtype, seed=data.draw(st.integers(0, 9)))
    for name in ('D', 'delta_bias'):
        if data.draw(st.booleans()):
            del case[name]
    softplus, reverse = data.draw(st.booleans()), data.draw(st.booleans())
    if not softplus:  # steps that are negative would let states grow
        for name in {'delta', 'delta_bias'} & set(case):
            case[name] = case[name].abs() * 0.3
    for name in ('u', 'delta', 'B', 'C'):
        case[name] = place(data, case[name])
    flags = dict(delta_softplus=softplus, reverse=reverse)
    check_plain(case, lambda grad: place(data, grad), **flags)


@random_settings(60)
@given(st.data())
def test_bidirectional_scan_at_random(data):
    sizes = [
        data.draw(st.integers(low, high))
        for low, high in ((0, 3), (1, 70), (1, 40), (1, 4), (1, 9), (1, 2))
    ]
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    case = fused_case(*sizes, dtype, seed=data.draw(st.integers(0, 9)))
    for name in ('u', 'proj'):
        case[name] = place(data, case[name])
    check_fused(case, lambda grad: place(data, grad))


@every_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
@pytest.mark.parametrize('dtype', list(TOLERANCE))
def test_dtypes_and_layouts(variant, device, dtype, layout):
    where = dict(dtype=dtype, layout=layout, device=device)
    case = plain_case(2, 24, 45, 3, 2, **where)
    check_plain(case, layout, reverse=True)
    del case['D'], case['delta_bias']
    case['delta'] = case['delta'].abs() * 0.3
    check_plain(case, layout, delta_softplus=False)
    for sizes in ((2, 41, 70, 2, 5), (2, 320, 196, 1, 10)):
        case = fused_case(*sizes, **where)
        got = check_fused(case, layout)
        if layout != 'strided':  # the result and the gradients keep it
            assert got['y'].stride() == case['u'].stride()
            for name in ('u', 'proj'):
                assert got[name].stride() == case[name].stride()


@every_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('length', LENGTHS)
def test_lengths(device, length, layout):
    where = dict(layout=layout, device=device)
    if length < 4225:  # 65x65 tokens: several chunks in every kernel
        check_plain(plain_case(2, 5, length, **where), reverse=True)
    check_fused(fused_case(1, 9, length, state=1 + (length > 4000), **where))


@every_device
@pytest.mark.parametrize('state', [1, 8, 16, 256])
def test_states_and_groups(device, state):
    for groups in (1, 4):
        check_plain(plain_case(2, 12, 33, state, groups, device=device))
    check_fused(fused_case(2, 35, 33, state, rank=1, device=device))


@every_device
def test_decays_of_any_size(device):
    """exp(delta * A) of -1e3 and far below gives 0, never NaN."""
    case = plain_case(1, 8, 40, device=device)
    case['A'] = -(10.0 ** torch.arange(8.0, device=device))[:, None]
    check_plain(case)
    case = plain_case(1, 5, 20, device=device)
    case['A'] = torch.tensor([[0.0], [0.1], [0.2], [-0.1], [0.0]]).to(device)
    check_plain(case)


@every_device
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_softplus_over_its_range(device, dtype):
    """From where softplus is exp(x) to where it is x."""
    case = plain_case(1, 3, 121, dtype=dtype, device=device, optional=False)
    ramp = torch.linspace(-60, 60, 121, dtype=dtype, device=device)
    case['delta'] = ramp.expand(1, 3, 121)
    check_plain(case)
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
    half = dict(dtype=torch.float16, device=device, optional=False)
    case = plain_case(1, 8, 64, **half)
    values = dict(u=6e4, B=100.0, C=1e-3, delta=0.05, A=-1.0)
    for name, value in values.items():
        case[name] = torch.full_like(case[name], value)
    y = ss.selective_scan(**case)
    exact = {k: v.cpu().double() for k, v in case.items()}
    fits = ss.selective_scan_reference(**exact).abs() < 65504
    assert fits.any()
    assert y.cpu()[fits].isfinite().all()


@every_device
@pytest.mark.parametrize('shape', [(0, 5, 4), (2, 5, 0), (2, 0, 4), (0, 0, 0)])
def test_empty(device, shape):
    check_plain(plain_case(*shape, state=2, device=device))
    check_fused(fused_case(*shape, device=device))


def test_nan_is_not_hidden(variant):
    case = fused_case(1, 40, 20)
    case['u'][0, 3, 7] = float('nan')
    y = ss.bidirectional_scan(**case)
    assert y[0, 3].isnan().all()
    assert y[0, 2].isfinite().all()
    case = fused_case(1, 40, 20, directions=1)
    case['proj'][0, 0, 0, 5] = float('nan')
    y = ss.bidirectional_scan(**case)
    assert y[0, :, 5:].isnan().all()
    assert y[0, :, :5].isfinite().all()


def test_names_of_the_cpu_variants(variant):
    assert ss.cpu_variant() == variant
    with pytest.raises(ValueError, match='avx2'):
        ss.set_cpu_variant('sse')

"""Outputs and gradients of both operators against the float64 reference."""

import pytest
import selective_scan as ss
import torch
from cases import (
    TOLERANCE,
    at_memory_end,
    check,
    devices,
    fused_case,
    lay_out,
    plain_case,
    random_settings,
    run_with_grads,
    strided,
)
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = [1, 2, 7, 31, 32, 33, 49, 63, 196, 257, 1024]
every_device = pytest.mark.parametrize('device', devices())


def check_plain(case, *layout, delta_softplus=True, **flags):
    flags['delta_softplus'] = delta_softplus
    return check('selective_scan', case, *layout, **flags)


def check_fused(case, *layout):
    return check('bidirectional_scan', case, *layout)


def place(data, tensor):
    """Draw any strides, in memory that ends with the last value."""
    return at_memory_end(data.draw(strided(tensor)))


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
    softplus, reverse = data.draw(st.booleans()), data.draw(st.booleans())
    if not softplus:  # steps that are negative would let states grow
        for name in {'delta', 'delta_bias'} & set(case):
            case[name] = case[name].abs() * 0.3
    for name in ('u', 'delta', 'B', 'C'):
        case[name] = place(data, case[name])
    check_plain(
        case,
        lambda grad: place(data, grad),
        delta_softplus=softplus,
        reverse=reverse,
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
    for name in ('u', 'proj'):
        case[name] = place(data, case[name])
    check_fused(case, lambda grad: place(data, grad))


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize(
    'variant', ['plain', 'avx2', 'avx512', 'cuda'], indirect=True
)
def test_dtypes_and_layouts(variant, dtype, layout):
    device = 'cuda' if variant == 'cuda' else 'cpu'
    where = dict(dtype=dtype, layout=layout, device=device)
    case = plain_case(2, 24, 45, 3, 2, **where)
    check_plain(case, layout, reverse=True)
    del case['D'], case['delta_bias']
    case['delta'] = case['delta'].abs() * 0.3
    check_plain(case, layout, delta_softplus=False)
    for sizes in ((2, 41, 70, 2, 5), (2, 320, 196, 1, 10)):
        check_fused(fused_case(*sizes, **where), layout)


@every_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('length', LENGTHS)
def test_lengths(device, length, layout):
    where = dict(layout=layout, device=device)
    check_plain(plain_case(2, 5, length, **where), reverse=True)
    check_fused(fused_case(1, 9, length, **where))


@every_device
@pytest.mark.parametrize('state', [1, 8, 16, 256])
@pytest.mark.parametrize('groups', [1, 4])
def test_states_and_groups(device, state, groups):
    check_plain(plain_case(2, 12, 33, state, groups, device=device))
    if groups == 1:
        check_fused(fused_case(2, 35, 33, state, rank=1, device=device))


@every_device
def test_long_sequence(device):
    """65x65 tokens, more than one chunk in every kernel."""
    check_fused(fused_case(1, 5, 4225, state=2, device=device))


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
    actual = check_fused(case, 'channels_last')
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


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_rounded_as_torch_does(variant, dtype, layout):
    """With B = 0, y is D * u rounded once."""
    u = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    u = torch.where(u.isfinite(), u, torch.zeros_like(u)).view(1, 1024, 64)
    if layout == 'channels_last':
        u = u.transpose(1, 2)
    dim, length = u.shape[1:]
    zeros = torch.zeros(1, 1, 1, length, dtype=dtype)
    fixed = torch.zeros_like(u), -torch.ones(dim, 1), zeros, zeros
    for factor in (1.0, 1.2345, 3e-4, -0.70711):
        y = ss.selective_scan(u, *fixed, torch.full((dim,), factor))
        assert torch.equal(y, (u.float() * factor).to(dtype))


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

"""Outputs and gradients of both operators against the float64 reference."""

import pytest
import selective_scan as ss
import torch
from scan_cases import compare, devices, fused_case, lay_out, plain_case

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
LENGTHS = [1, 2, 7, 31, 32, 33, 49, 63, 196, 257, 1024]
LAYOUTS = ['contiguous', 'channels_last', 'sliced', 'strided']


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES)
class TestDtypesAndLayouts:
    @pytest.mark.parametrize('reverse', [False, True])
    def test_selective_scan(self, device, dtype, layout, reverse):
        case = plain_case(
            2, 20, 37, 2, 2, dtype=dtype, layout=layout, device=device
        )
        actual = compare(
            ss.selective_scan,
            ss.selective_scan_reference,
            case,
            dtype,
            grad_layout=layout,
            delta_softplus=True,
            reverse=reverse,
        )
        assert actual['y'].dtype == dtype

    @pytest.mark.parametrize('directions', [1, 2])
    def test_bidirectional_scan(self, device, dtype, layout, directions):
        case = fused_case(
            2,
            37,
            35,
            rank=5,
            directions=directions,
            dtype=dtype,
            layout=layout,
            device=device,
        )
        actual = compare(
            ss.bidirectional_scan,
            ss.bidirectional_scan_reference,
            case,
            dtype,
            grad_layout=layout,
        )
        assert actual['y'].dtype == dtype


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('length', LENGTHS)
class TestLengths:
    def test_selective_scan(self, device, length, layout):
        case = plain_case(2, 5, length, layout=layout, device=device)
        compare(
            ss.selective_scan,
            ss.selective_scan_reference,
            case,
            torch.float32,
            delta_softplus=True,
        )

    def test_bidirectional_scan(self, device, length, layout):
        case = fused_case(1, 9, length, layout=layout, device=device)
        compare(
            ss.bidirectional_scan,
            ss.bidirectional_scan_reference,
            case,
            torch.float32,
        )


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('state', [1, 2, 8, 16, 256])
class TestStates:
    @pytest.mark.parametrize('groups', [1, 2, 4])
    def test_selective_scan(self, device, state, groups):
        case = plain_case(2, 12, 33, state, groups, device=device)
        compare(
            ss.selective_scan,
            ss.selective_scan_reference,
            case,
            torch.float32,
            delta_softplus=True,
            reverse=True,
        )

    def test_bidirectional_scan(self, device, state):
        case = fused_case(2, 35, 33, state, rank=1, device=device)
        compare(
            ss.bidirectional_scan,
            ss.bidirectional_scan_reference,
            case,
            torch.float32,
        )


@pytest.mark.parametrize('device', devices())
def test_long_sequence(device):
    """65x65 tokens, more than one chunk in every kernel."""
    case = fused_case(1, 5, 4225, state=2, device=device)
    compare(
        ss.bidirectional_scan,
        ss.bidirectional_scan_reference,
        case,
        torch.float32,
    )


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('dim', [1, 7, 8, 15, 33, 65])
def test_odd_dims(device, dim):
    for layout in ('contiguous', 'channels_last'):
        case = fused_case(3, dim, 11, rank=2, layout=layout, device=device)
        compare(
            ss.bidirectional_scan,
            ss.bidirectional_scan_reference,
            case,
            torch.float32,
        )


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('name', ['D', 'delta_bias'])
@pytest.mark.parametrize('softplus', [False, True])
def test_optional_arguments_absent(device, name, softplus):
    case = plain_case(2, 9, 19, device=device)
    del case[name]
    if not softplus:
        case['delta'] = case['delta'].abs() * 0.3
    compare(
        ss.selective_scan,
        ss.selective_scan_reference,
        case,
        torch.float32,
        delta_softplus=softplus,
    )


@pytest.mark.parametrize('device', devices())
def test_large_decay_underflows_to_zero(device):
    """exp(delta * A) of -1e3 and far below gives 0, never NaN."""
    case = plain_case(1, 8, 40, device=device)
    case['A'] = -(10.0 ** torch.arange(8.0, device=device))[:, None]
    compare(
        ss.selective_scan,
        ss.selective_scan_reference,
        case,
        torch.float32,
        delta_softplus=True,
    )


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_softplus_over_its_range(device, dtype):
    """From where softplus is exp(x) to where it is x."""
    case = plain_case(1, 3, 121, dtype=dtype, device=device, optional=False)
    ramp = torch.linspace(-60, 60, 121, dtype=dtype, device=device)
    case['delta'] = ramp.expand(1, 3, 121)
    compare(
        ss.selective_scan,
        ss.selective_scan_reference,
        case,
        dtype,
        delta_softplus=True,
    )


@pytest.mark.parametrize('device', devices())
def test_tiny_steps_keep_their_relative_accuracy(device):
    """At x = -15, softplus is 3e-7: no absolute error may hide it."""
    case = plain_case(1, 4, 1, device=device, optional=False)
    case['delta'] = torch.full_like(case['delta'], -15.0)
    y = ss.selective_scan(**case, delta_softplus=True)
    exact = {k: v.double() for k, v in case.items()}
    expected = ss.selective_scan_reference(**exact, delta_softplus=True)
    torch.testing.assert_close(y.double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize('device', devices())
def test_positive_and_zero_decay(device):
    case = plain_case(1, 5, 20, device=device)
    case['A'] = torch.tensor([[0.0], [0.1], [0.2], [-0.1], [0.0]]).to(device)
    compare(
        ss.selective_scan,
        ss.selective_scan_reference,
        case,
        torch.float32,
        delta_softplus=True,
    )


@pytest.mark.parametrize('device', devices())
def test_half_precision_survives_extreme_inputs(device):
    """States beyond float16's range, results within it."""
    case = plain_case(1, 8, 64, dtype=torch.float16, device=device)
    case['u'] = torch.full_like(case['u'], 6e4)
    case['B'] = torch.full_like(case['B'], 100.0)
    case['C'] = torch.full_like(case['C'], 1e-3)
    case['delta'] = torch.full_like(case['delta'], 0.05)
    case['A'] = torch.full_like(case['A'], -1.0)
    case['D'] = torch.zeros_like(case['D'])
    del case['delta_bias']
    y = ss.selective_scan(**case)
    exact = {k: v.cpu().double() for k, v in case.items()}
    expected = ss.selective_scan_reference(**exact)
    fits = expected.abs() < 65504
    assert fits.any()
    assert y.cpu()[fits].isfinite().all()


@pytest.mark.parametrize('device', devices())
def test_image_maps_are_taken_in_place(device):
    """A channels_last image viewed as tokens: y has the same strides."""
    image = torch.randn(2, 12, 5, 7).to(device)
    image = image.to(memory_format=torch.channels_last)
    case = fused_case(2, 12, 35, device=device)
    case['u'] = image.flatten(2)
    case['proj'] = lay_out(case['proj'], 'channels_last')
    actual = compare(
        ss.bidirectional_scan,
        ss.bidirectional_scan_reference,
        case,
        torch.float32,
        grad_layout='channels_last',
    )
    assert actual['y'].stride() == case['u'].stride()
    assert actual['u'].stride() == case['u'].stride()
    assert actual['proj'].stride() == case['proj'].stride()


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('shape', [(0, 5, 4), (2, 5, 0), (2, 0, 4), (0, 0, 0)])
def test_empty(device, shape):
    batch, dim, length = shape
    case = plain_case(batch, dim, length, state=2, device=device)
    grad = torch.zeros(shape, device=device)
    for name, leaf in case.items():
        case[name] = leaf.requires_grad_()
    y = ss.selective_scan(**case)
    y.backward(grad)
    assert y.shape == shape
    assert case['A'].grad.abs().sum() == 0
    case = fused_case(batch, dim, length, device=device)
    for name, leaf in case.items():
        case[name] = leaf.requires_grad_()
    y = ss.bidirectional_scan(**case)
    y.backward(grad)
    assert y.shape == shape
    assert case['proj'].grad.shape == case['proj'].shape
    assert case['D'].grad.abs().sum() == 0

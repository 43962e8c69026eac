"""gated_layer_norm against PyTorch's norm and activation in float64."""

import pytest
import selective_scan as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import TOKEN_LAYOUTS, norm_case, place_tokens
from scan_cases import TOLERANCE, assert_close, devices, run_with_grads

ops = torch.ops.selective_scan


def check(case, dtype, grad_layout='contiguous'):
    """Compare the result and every gradient with the float64 reference."""
    grad = torch.randn(case['x'].shape, dtype=torch.float64).to(dtype)
    device = case['x'].device
    actual = run_with_grads(
        ss.gated_layer_norm, case, place_tokens(grad, grad_layout).to(device)
    )
    exact = {k: v.detach().cpu().double() for k, v in case.items()}
    expected = run_with_grads(
        ss.gated_layer_norm_reference, exact, grad.double()
    )
    for name, value in actual.items():
        assert_close(value, expected[name], dtype, name)
    return actual


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('x_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('z_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
def test_forward_and_gradients(dtype, x_layout, z_layout, device):
    """Channels and tokens that fill no vector, layouts that differ."""
    case = norm_case(3, 83, 37, dtype, (x_layout, z_layout), device)
    y = check(case, dtype, z_layout)['y']
    last = x_layout in ('channels_last', 'half')
    assert (y.mT if last else y).is_contiguous()


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('sizes', [(1, 4, 1), (5, 544, 1), (2, 320, 1050)])
def test_sizes(sizes, device):
    for layout in ('contiguous', 'channels_last'):
        case = norm_case(*sizes, layouts=(layout, layout), device=device)
        check(case, torch.float32, layout)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(0, 3), st.integers(4, 70), st.integers(0, 40)),
    dtype=st.sampled_from(list(TOLERANCE)),
    layouts=st.tuples(*[st.sampled_from(TOKEN_LAYOUTS)] * 3),
)
def test_random_shapes(sizes, dtype, layouts):
    check(norm_case(*sizes, dtype, layouts[:2]), dtype, layouts[2])


def test_one_channel_is_its_bias():
    """Its gradient is a difference of equal terms of some hundreds."""
    case = norm_case(2, 1, 5)
    leaves = {k: v.requires_grad_() for k, v in case.items()}
    y = ss.gated_layer_norm(**leaves)
    wanted = case['bias'] * torch.nn.functional.silu(case['z'])
    torch.testing.assert_close(y, wanted)
    y.sum().backward()
    assert case['x'].grad.abs().max() < 1e-3


def test_values_far_from_zero_keep_their_variance():
    case = norm_case(2, 64, 5)
    case['x'] = case['x'] + 3000
    check(case, torch.float32)


def test_large_gates_saturate():
    case = norm_case(1, 16, 4)
    case['z'] = case['z'] * 100
    check(case, torch.float32)


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'half'])
def test_operator(layout, device):
    case = norm_case(layouts=(layout, layout), device=device)
    tensors = [x.requires_grad_() for x in case.values()]
    torch.library.opcheck(ops.gated_layer_norm.default, (*tensors, 1e-5))
    tensors = [x.detach() for x in tensors]
    grad = torch.randn_like(case['x'])
    torch.library.opcheck(
        ops.gated_layer_norm_backward.default, (grad, *tensors, 1e-5)
    )
    case = norm_case(2, 4, 3, torch.float64, device=device)
    assert torch.autograd.gradcheck(
        ss.gated_layer_norm, [x.requires_grad_() for x in case.values()]
    )


@pytest.mark.parametrize('device', devices())
def test_autocast_and_mixed_types(device):
    case = norm_case(dtype=torch.bfloat16, device=device)
    case['z'] = case['z'].float()
    plain = ss.gated_layer_norm(**case)
    assert plain.dtype == torch.bfloat16
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(ss.gated_layer_norm(**case), plain)
    low = {k: v.bfloat16() for k, v in case.items()}
    assert ss.gated_layer_norm(**low).dtype == torch.bfloat16


@pytest.mark.parametrize('device', devices())
def test_same_bits_whatever_the_threads(device):
    case = norm_case(9, 40, 35, device=device)
    grad = torch.randn_like(case['x'])
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run_with_grads(ss.gated_layer_norm, case, grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_compile_without_graph_break():
    case = norm_case(layouts=('channels_last', 'half'))

    def run(x, z, weight, bias):
        return ss.gated_layer_norm(x * 2, z, weight, bias).relu()

    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    grad = torch.randn_like(case['x'])
    torch.testing.assert_close(
        run_with_grads(compiled, case, grad), run_with_grads(run, case, grad)
    )


def test_errors_name_the_argument():
    case = norm_case(2, 3, 4)
    for name, wrong, error in (
        ('x', torch.randn(2, 3), ValueError),
        ('z', torch.randn(2, 3, 5), ValueError),
        ('weight', torch.randn(4), ValueError),
        ('bias', torch.randn(3, 1), ValueError),
        ('x', case['x'].int(), TypeError),
    ):
        with pytest.raises(error, match=f'{name} must'):
            ss.gated_layer_norm(**{**case, name: wrong})
    with pytest.raises(ValueError, match='eps must be 0 or a positive'):
        ss.gated_layer_norm(**case, eps=-1.0)

"""gated_layer_norm against PyTorch's norm in float64; what both share."""

import pytest
import selective_scan as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import TOKEN_LAYOUTS, check, norm_case, wavelet_case
from scan_cases import TOLERANCE, devices, run_with_grads

ops = torch.ops.selective_scan
CASES = {'wavelet_conv2d': wavelet_case, 'gated_layer_norm': norm_case}


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('x_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('z_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
def test_forward_and_gradients(dtype, x_layout, z_layout, device):
    """Channels and tokens that fill no vector, layouts that differ."""
    case = norm_case(3, 83, 37, dtype, (x_layout, z_layout), device)
    y = check('gated_layer_norm', case, z_layout)['y']
    last = x_layout in ('channels_last', 'half')
    assert (y.mT if last else y).is_contiguous()


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('sizes', [(1, 4, 1), (5, 544, 1), (2, 320, 1050)])
def test_sizes(sizes, device):
    for layout in ('contiguous', 'channels_last'):
        case = norm_case(*sizes, layouts=(layout, layout), device=device)
        check('gated_layer_norm', case, layout)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(0, 3), st.integers(4, 70), st.integers(0, 40)),
    dtype=st.sampled_from(list(TOLERANCE)),
    layouts=st.tuples(*[st.sampled_from(TOKEN_LAYOUTS)] * 3),
)
def test_random_shapes(sizes, dtype, layouts):
    case = norm_case(*sizes, dtype, layouts[:2])
    check('gated_layer_norm', case, layouts[2])


def test_one_channel_is_its_bias():
    """Its gradient is a difference of equal terms of some hundreds."""
    case = norm_case(2, 1, 5)
    leaves = {k: v.requires_grad_() for k, v in case.items()}
    y = ss.gated_layer_norm(**leaves)
    wanted = case['bias'] * torch.nn.functional.silu(case['z'])
    torch.testing.assert_close(y, wanted)
    y.sum().backward()
    assert case['x'].grad.abs().max() < 1e-3


@pytest.mark.parametrize('device', devices())
def test_values_far_away(device):
    """Neither lose variance nor, as gates, overflow."""
    case = norm_case(2, 64, 5, device=device)
    case['x'] = case['x'] + 3000
    case['z'] = case['z'] * 100
    check('gated_layer_norm', case)


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
    with pytest.raises(ValueError, match='eps must'):
        ss.gated_layer_norm(**case, eps=-1.0)


@pytest.mark.parametrize('name', CASES)
class TestBoth:
    @pytest.mark.parametrize('device', devices())
    def test_autocast_and_mixed_types(self, name, device):
        """The type is x's, whatever that of the parameters."""
        case = CASES[name](dtype=torch.bfloat16, device=device)
        plain = getattr(ss, name)(**case)
        with torch.autocast(device, dtype=torch.float16):
            assert torch.equal(getattr(ss, name)(**case), plain)
        low = {k: v.bfloat16() for k, v in case.items()}
        assert getattr(ss, name)(**low).dtype == plain.dtype == torch.bfloat16

    @pytest.mark.parametrize('device', devices())
    def test_same_bits_whatever_the_threads(self, name, device):
        case = CASES[name](7, 40, 35, device=device)
        grad = torch.randn_like(case['x'])
        threads = torch.get_num_threads()
        try:
            results = []
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                results.append(run_with_grads(getattr(ss, name), case, grad))
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            for key, value in results[0].items():
                assert torch.equal(value, other[key]), key

    def test_compile_without_graph_break(self, name):
        case = CASES[name]()

        def run(x, **rest):
            return getattr(ss, name)(x * 2, **rest).relu()

        compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
        grad = torch.randn_like(case['x'])
        torch.testing.assert_close(
            run_with_grads(compiled, case, grad),
            run_with_grads(run, case, grad),
        )

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
    def test_cuda_graph(self, name):
        case = CASES[name](device='cuda')
        leaves = [v.requires_grad_() for v in case.values()]

        def step():
            y = getattr(ss, name)(**case)
            return y, *torch.autograd.grad(y.square().sum(), leaves)

        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            expected = step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            actual = step()
        graph.replay()
        for a, b in zip(actual, expected, strict=True):
            assert torch.equal(a, b)

"""wavelet_conv2d against PyTorch's convolutions in float64."""

import pytest
import selective_scan as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import MAP_LAYOUTS, place_map, wavelet_case
from scan_cases import TOLERANCE, assert_close, devices, run_with_grads

ops = torch.ops.selective_scan


def check(case, dtype, grad_layout='contiguous'):
    """Compare the result and every gradient with the float64 reference."""
    grad = torch.randn(case['x'].shape, dtype=torch.float64).to(dtype)
    device = case['x'].device
    actual = run_with_grads(
        ss.wavelet_conv2d, case, place_map(grad, grad_layout).to(device)
    )
    exact = {k: v.detach().cpu().double() for k, v in case.items()}
    expected = run_with_grads(
        ss.wavelet_conv2d_reference, exact, grad.double()
    )
    for name, value in actual.items():
        assert_close(value, expected[name], dtype, name)
    return actual


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', MAP_LAYOUTS)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('side', [1, 3, 5, 7, 9])
def test_forward_and_gradients(side, dtype, layout, device):
    """Odd sides, channels that fill no block, maps of more than one tile."""
    case = wavelet_case(2, 19, 21, 36, side, dtype, layout, device)
    y = check(case, dtype, layout)['y']
    last = layout in ('channels_last', 'slice_last')
    assert y.is_contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (8, 1), (2, 2), (50, 84)])
def test_sizes(size, device):
    for layout in ('contiguous', 'channels_last'):
        case = wavelet_case(3, 33, *size, 7, layout=layout, device=device)
        check(case, torch.float32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 36),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    side=st.sampled_from([1, 3, 5, 7]),
    dtype=st.sampled_from(list(TOLERANCE)),
    layouts=st.tuples(
        st.sampled_from(MAP_LAYOUTS), st.sampled_from(MAP_LAYOUTS)
    ),
)
def test_random_shapes(batch, channels, size, side, dtype, layouts):
    case = wavelet_case(batch, channels, *size, side, dtype, layouts[0])
    check(case, dtype, layouts[1])


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
    case = wavelet_case(layout=layout, device=device)
    x, weight = case['x'], case['weight']
    leaves = x.requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(ops.wavelet_conv2d.default, leaves)
    torch.library.opcheck(
        ops.wavelet_conv2d_backward.default,
        (torch.randn_like(x), x.detach(), weight.detach()),
    )
    pixel = wavelet_case(2, 5, 1, 1, layout=layout, device=device)['x']
    torch.library.opcheck(ops.wavelet_conv2d.default, (pixel, weight))
    case = wavelet_case(1, 2, 3, 5, dtype=torch.float64, device=device)
    assert torch.autograd.gradcheck(
        ss.wavelet_conv2d, [x.requires_grad_() for x in case.values()]
    )


@pytest.mark.parametrize('device', devices())
def test_autocast_and_mixed_types(device):
    case = wavelet_case(dtype=torch.bfloat16, device=device)
    plain = ss.wavelet_conv2d(**case)
    assert plain.dtype == torch.bfloat16
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(ss.wavelet_conv2d(**case), plain)
    low = {k: v.bfloat16() for k, v in case.items()}
    assert ss.wavelet_conv2d(**low).dtype == torch.bfloat16


@pytest.mark.parametrize('device', devices())
def test_same_bits_whatever_the_threads(device):
    case = wavelet_case(5, 40, 9, 12, 5, device=device)
    grad = torch.randn_like(case['x'])
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run_with_grads(ss.wavelet_conv2d, case, grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_compile_without_graph_break():
    case = wavelet_case(layout='channels_last')

    def run(x, weight, scale):
        return ss.wavelet_conv2d(x * 2, weight, scale).relu()

    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    grad = torch.randn_like(case['x'])
    torch.testing.assert_close(
        run_with_grads(compiled, case, grad), run_with_grads(run, case, grad)
    )


def test_errors_name_the_argument():
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(12, 1, 3, 3)
    for wrong in (weight[:8], weight[..., :2], weight[:, 0]):
        with pytest.raises(ValueError, match='weight must have the shape'):
            ss.wavelet_conv2d(x, wrong)
    with pytest.raises(ValueError, match='x must have the shape'):
        ss.wavelet_conv2d(x[0], weight)
    with pytest.raises(TypeError, match='x must be float32'):
        ss.wavelet_conv2d(x.int(), weight)
    with pytest.raises(TypeError, match='weight must have the dtype'):
        ops.wavelet_conv2d(x, weight.double())
    with pytest.raises(ValueError, match="grad must have x's shape"):
        ops.wavelet_conv2d_backward(x[:1], x, weight)

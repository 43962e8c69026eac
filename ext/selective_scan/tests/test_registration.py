"""What torch.library promises: gradients, fakes, autocast, compile."""

import pytest
import selective_scan as ss
import torch
from cases import CASES, devices, fused_case, plain_case, run_with_grads

ops = torch.ops.selective_scan
every_device = pytest.mark.parametrize('device', devices())
every_function = pytest.mark.parametrize('name', CASES)
layouts = pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])


def small_case(name, **where):
    """Make the arguments that the operator takes, in its order."""
    if name == 'selective_scan':
        case = plain_case(2, 6, 5, 2, 2, **where)
        case['delta'] = case['delta'].abs()  # decays without softplus, too
        order = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
        return {k: case[k] for k in order}
    case = CASES[name](2, 6, 5, **where)
    case.pop('scale', None)
    return case


@every_device
@every_function
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
def test_opcheck(name, layout, device):
    tensors = list(small_case(name, layout=layout, device=device).values())
    grad = torch.randn_like(tensors[0])
    calls = [tensors]
    if name == 'selective_scan':
        calls = [[*tensors, True, True], [*tensors[:5], None, None, False]]
    if name == 'gated_layer_norm':
        calls = [[*tensors, 1e-5]]
    for arguments in calls:
        forward = [
            x.detach().requires_grad_() if torch.is_tensor(x) else x
            for x in arguments
        ]
        torch.library.opcheck(getattr(ops, name).default, tuple(forward))
        torch.library.opcheck(
            getattr(ops, f'{name}_backward').default, (grad, *arguments)
        )


def test_second_derivative_is_refused():
    case = {k: v.requires_grad_() for k, v in fused_case().items()}
    y = ss.bidirectional_scan(**case)
    (grad,) = torch.autograd.grad(y.sum(), case['u'], create_graph=True)
    with pytest.raises(NotImplementedError):
        grad.sum().backward()


@every_device
@pytest.mark.parametrize(
    ('name', 'low', 'wide'),
    [
        ('selective_scan', ('u', 'delta'), torch.float32),
        ('bidirectional_scan', ('u', 'proj'), torch.bfloat16),
        ('wavelet_conv2d', ('x',), torch.bfloat16),
        ('gated_layer_norm', ('x', 'z'), torch.bfloat16),
    ],
)
def test_autocast(device, name, low, wide):
    """Inputs keep the widest of their dtypes, parameters float32."""
    case, function = CASES[name](device=device), getattr(ss, name)
    case.update({key: case[key].bfloat16() for key in low})
    with torch.autocast(device, dtype=torch.float16):
        y = function(**case)
    case.update({key: case[key].to(wide) for key in low})
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, function(**case).bfloat16(), rtol=0, atol=0)


@every_function
def test_parameters_of_half_models_are_widened(name):
    case = {k: v.half() for k, v in CASES[name]().items()}
    y = getattr(ss, name)(**case)
    expected = getattr(ss, f'{name}_reference')(**case)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, expected, rtol=2e-3, atol=2e-3)


@every_device
@every_function
@layouts
def test_compile_without_graph_break(name, device, layout):
    case = CASES[name](layout=layout, device=device)
    first = next(iter(case))

    def run(**case):
        case[first] = case[first] * 2
        return getattr(ss, name)(**case).relu()

    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    grad = torch.randn_like(case[first])
    torch.testing.assert_close(
        run_with_grads(compiled, case, grad), run_with_grads(run, case, grad)
    )


@every_device
@every_function
@layouts
def test_same_bits_whatever_the_threads(name, device, layout, threads):
    sizes = (3, 36, 65, 2, 2) if name == 'selective_scan' else (7, 70, 35)
    case = CASES[name](*sizes, layout=layout, device=device)
    grad = torch.randn_like(next(iter(case.values())))
    flags = dict(delta_softplus=True) if name == 'selective_scan' else {}
    results = []
    for count in (1, 1, 2, 5):
        threads(count)
        results.append(run_with_grads(getattr(ss, name), case, grad, **flags))
    for other in results[1:]:
        for key, value in results[0].items():
            assert torch.equal(value, other[key]), key

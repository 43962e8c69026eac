"""What torch.library promises: gradients, fakes, autocast, compile."""

import pytest
import selective_scan as ss
import torch
from cases import CASES, devices, fused_case, run_with_grads

ops = torch.ops.selective_scan
every_device = pytest.mark.parametrize('device', devices())
every_function = pytest.mark.parametrize('name', CASES)
layouts = pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])


@every_device
@every_function
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
def test_opcheck(name, layout, device):
    sizes = (2, 6, 5, 2, 2) if name == 'selective_scan' else (2, 6, 5)
    case = CASES[name](*sizes, layout=layout, device=device)
    case.pop('scale', None)
    calls = [case]
    if name == 'selective_scan':
        case['delta'] = case['delta'].abs()  # decays without softplus, too
        some = {k: case[k] for k in ('u', 'delta', 'A', 'B', 'C')}
        calls = [dict(case, delta_softplus=True, reverse=True), some]
    grad = torch.randn_like(next(iter(case.values())))
    for call in calls:
        backward = getattr(ops, f'{name}_backward').default
        torch.library.opcheck(backward, (grad,), call)
        leaves = {
            k: v.detach().requires_grad_() if torch.is_tensor(v) else v
            for k, v in call.items()
        }
        torch.library.opcheck(getattr(ops, name).default, (), leaves)


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

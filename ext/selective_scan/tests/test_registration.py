"""What torch.library promises: gradients, fakes, autocast, compile."""

import pytest
import selective_scan as ss
import torch
from scan_cases import devices, fused_case, lay_out, plain_case
from torch.utils.checkpoint import checkpoint

ops = torch.ops.selective_scan


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
def test_opcheck(device, layout):
    case = plain_case(2, 6, 5, 2, 2, layout=layout, device=device)
    case['delta'] = case['delta'].abs()  # decays without softplus, too
    grad = torch.randn_like(case['u'])
    order = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
    tensors = [case[name].requires_grad_() for name in order]
    torch.library.opcheck(ops.selective_scan.default, (*tensors, True, True))
    torch.library.opcheck(
        ops.selective_scan.default, (*tensors[:5], None, None, False, False)
    )
    tensors = [x.detach() for x in tensors]
    torch.library.opcheck(
        ops.selective_scan_backward.default, (grad, *tensors, True, False)
    )
    torch.library.opcheck(
        ops.selective_scan_backward.default, (grad, *tensors[:5])
    )
    case = fused_case(2, 6, 5, layout=layout, device=device)
    tensors = [x.requires_grad_() for x in case.values()]
    torch.library.opcheck(ops.bidirectional_scan.default, tuple(tensors))
    tensors = [x.detach() for x in tensors]
    torch.library.opcheck(
        ops.bidirectional_scan_backward.default, (grad, *tensors)
    )


def test_second_derivative_is_refused():
    case = {k: v.requires_grad_() for k, v in fused_case().items()}
    y = ss.bidirectional_scan(**case)
    (grad,) = torch.autograd.grad(y.sum(), case['u'], create_graph=True)
    with pytest.raises(NotImplementedError, match='second derivative'):
        grad.sum().backward()


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('name', ['plain', 'fused'])
def test_autocast(device, name):
    """Inputs keep the widest of their dtypes, parameters float32."""
    if name == 'plain':
        case, function = plain_case(device=device), ss.selective_scan
        low, wide = ('u', 'delta'), torch.float32
    else:
        case, function = fused_case(device=device), ss.bidirectional_scan
        low, wide = ('u', 'proj'), torch.bfloat16
    for key in low:
        case[key] = case[key].bfloat16()
    with torch.autocast(device, dtype=torch.bfloat16):
        y = function(**case)
    wanted = function(
        **{k: v.to(wide) for k, v in case.items() if k in low},
        **{k: v for k, v in case.items() if k not in low},
    )
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, wanted.bfloat16(), rtol=0, atol=0)


def test_parameters_of_half_models_are_widened():
    case = {k: v.half() for k, v in fused_case().items()}
    y = ss.bidirectional_scan(**case)
    expected = ss.bidirectional_scan_reference(**case)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_compile_without_graph_break(device, layout):
    case = fused_case(2, 12, 9, layout=layout, device=device)

    def run(u, **rest):
        return ss.bidirectional_scan(u * 2, **rest).relu()

    def gradients(function):
        leaves = {k: v.detach().requires_grad_() for k, v in case.items()}
        y = function(**leaves)
        y.square().sum().backward()
        return y.detach(), [x.grad for x in leaves.values()]

    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(gradients(compiled), gradients(run))


def test_compile_of_selective_scan_with_dynamic_length():
    def run(**case):
        return ss.selective_scan(**case, delta_softplus=True) + 1

    compiled = torch.compile(
        run, fullgraph=True, backend='aot_eager', dynamic=True
    )
    for length in (5, 8, 13):
        case = plain_case(length=length)
        torch.testing.assert_close(compiled(**case), run(**case))


@pytest.mark.parametrize('device', devices())
def test_activation_checkpointing(device):
    case = fused_case(2, 10, 21, device=device)

    def gradients(wrapped):
        leaves = [x.detach().requires_grad_() for x in case.values()]
        y = wrapped(*leaves)
        y.square().sum().backward()
        return [x.grad for x in leaves]

    def run(*tensors):
        return ss.bidirectional_scan(*tensors)

    plain = gradients(run)
    recomputed = gradients(lambda *x: checkpoint(run, *x, use_reentrant=False))
    for a, b in zip(plain, recomputed, strict=True):
        assert torch.equal(a, b)


def test_distributed_data_parallel(tmp_path):
    """Gradients reach the parameters through DDP's hooks."""

    class Scan(torch.nn.Module):
        def __init__(self, case):
            super().__init__()
            for name in ('dt_proj', 'dt_bias', 'A', 'D'):
                setattr(self, name, torch.nn.Parameter(case[name].clone()))

        def forward(self, u, proj):
            return ss.bidirectional_scan(
                u, proj, self.dt_proj, self.dt_bias, self.A, self.D
            )

    case = fused_case()
    plain, wrapped = Scan(case), Scan(case)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        ddp = torch.nn.parallel.DistributedDataParallel(wrapped)
        for module in (plain, ddp):
            module(case['u'], case['proj']).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize('device', devices())
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_same_bits_every_time(device, layout):
    case = fused_case(3, 70, 65, state=2, layout=layout, device=device)
    grad = lay_out(torch.randn(3, 70, 65), layout).to(device)

    def run():
        y = ops.bidirectional_scan(**case)
        return [y, *ops.bidirectional_scan_backward(grad, **case)]

    first = run()
    for _ in range(3):
        for a, b in zip(first, run(), strict=True):
            assert torch.equal(a, b)


def test_one_and_many_threads_give_the_same_bits():
    case = fused_case(3, 70, 65)
    plain = plain_case(2, 36, 65, 2, 2)
    plain['delta_softplus'] = True
    grad = torch.randn(3, 70, 65)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(
                [
                    ops.bidirectional_scan(**case),
                    *ops.bidirectional_scan_backward(grad, **case),
                    ops.selective_scan(**plain),
                    *ops.selective_scan_backward(plain['u'], **plain),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)

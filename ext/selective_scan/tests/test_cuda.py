"""What only a GPU can show of the CUDA kernels."""

import pytest
import selective_scan as ss
import torch
from cases import CASES, check, fused_case, run_with_grads

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU'
)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16]
)
@pytest.mark.parametrize(
    'channels, length, rank',
    [(320, 196, 10), (512, 64, 16), (544, 16, 17), (320, 1050, 10)],
)
def test_scans_of_the_networks(dtype, layout, channels, length, rank):
    where = dict(dtype=dtype, layout=layout, device='cuda')
    case = fused_case(2, channels, length, rank=rank, **where)
    check('bidirectional_scan', case, layout)


@pytest.mark.parametrize('length', [256, 4200])
def test_same_bits_at_every_run(length):
    case = fused_case(4, 320, length, rank=10, device='cuda')
    grad = torch.randn_like(case['u'])
    first, second = (
        run_with_grads(ss.bidirectional_scan, case, grad) for _ in range(2)
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('selective_scan', (2, 64, 16)),
        ('bidirectional_scan', (2, 64, 64, 1, 4)),
        ('bidirectional_scan', (2, 64, 600, 1, 4)),
        ('bidirectional_scan', (2, 64, 600, 2, 4)),
        ('wavelet_conv2d', (2, 5, 7, 6)),
        ('gated_layer_norm', (2, 7, 9)),
    ],
)
def test_graph_capture_and_replay(name, sizes):
    """A replay reads the inputs' new values; nothing waits for the GPU."""
    case = CASES[name](*sizes, device='cuda')
    leaves = {k: v.requires_grad_() for k, v in case.items()}
    first = next(iter(leaves.values()))
    grad = torch.randn_like(first)

    def step():
        y = getattr(ss, name)(**leaves)
        return y, *torch.autograd.grad(y, list(leaves.values()), grad)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        first.mul_(0.5)
    graph.replay()
    for replayed, expected in zip(captured, step(), strict=True):
        assert torch.equal(replayed, expected)

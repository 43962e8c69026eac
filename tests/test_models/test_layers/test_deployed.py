"""The deployed form computes what the trained one does, however it runs."""

import copy
import pickle

import pytest
import torch

from mmmobilemamba.models.backbones import MobileMamba
from mmmobilemamba.ops import find_extension

NANO = dict(channels=(64, 80, 96), depths=(1, 1, 1))
PACKED = pytest.mark.skipif(
    find_extension().inference is None, reason='no packed weights here'
)


def made(deploy=True, **choices):
    torch.manual_seed(0)
    model = MobileMamba(arch=dict(NANO, **choices)).eval()
    for name, tensor in model.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            noise = torch.rand(tensor.shape)
            low = tensor.dim() > 1
            tensor.copy_(0.3 * (noise - 0.5) if low else noise + 0.5)
    if deploy:
        model.switch_to_deploy()
    return model


def assert_near(got, wanted, tolerance=1e-4):
    # By norm: single values may be what sums left over.
    for a, b in zip(got, wanted, strict=True):
        assert (a.float() - b.float()).norm() <= tolerance * b.float().norm()


def infer(model, x):
    with torch.inference_mode():
        return model(x)


@pytest.mark.parametrize(
    'choices',
    [
        dict(),
        dict(scan_directions=1),
        dict(scan_directions=4, d_state=2),
        dict(wavelet_levels=2, local_splits=2),
        dict(wavelet_levels=3, local_splits=3),
        dict(wavelet_levels=0, ssm_ratio=1.5),
        dict(global_ratios=(0, 0.5, 1), local_ratios=(0.5, 0, 0)),
    ],
)
@pytest.mark.parametrize('size', [(65, 97), (128, 64)])
def test_every_way_of_running_agrees(choices, size):
    model = made(deploy=False, **choices)
    x = torch.randn(2, 3, *size)
    last = x.contiguous(memory_format=torch.channels_last)
    wanted = infer(model, x)
    model.switch_to_deploy()
    sum(out.square().mean() for out in model(x)).backward()
    assert all(p.grad is not None for p in model.parameters())
    for images in (x, last):
        assert_near(infer(model, images), wanted)
        assert_near(model(images), wanted)  # with gradients
        # A detector's operators read memory as if it were contiguous.
        for out in infer(model, images):
            assert out.is_contiguous() == images.is_contiguous()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        outs = model(x)
    assert outs[-1].dtype == torch.bfloat16
    assert_near(outs, wanted, 0.1)
    assert_near(infer(model.bfloat16(), x.bfloat16()), wanted, 0.1)


@PACKED
def test_packed_weights_serve_inference_alone():
    model, x = made(), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autograd.profiler.profile() as profile:
        model(x)
    names = {event.name for event in profile.function_events}
    for name in ('feed_forward', 'dense_conv2d', 'packed_wavelet_conv2d'):
        assert f'selective_scan::{name}' in names
    # Packed at every call they would be slower than plain ones.
    assert 'aten::constant_pad_nd' not in names
    with torch.no_grad():
        graph = torch.jit.trace(model, x).inlined_graph
    assert 'selective_scan' not in str(graph)
    assert 'aten::_convolution' in str(graph)


def renew(model, way='load'):
    state = model.state_dict()
    state = {k: v * (1.5 if v.dim() > 1 else 0.7) for k, v in state.items()}
    if way == 'load':
        model.load_state_dict(state)
        return
    for name, parameter in model.named_parameters():
        if way == 'in place':
            parameter.detach().copy_(state[name])
        else:
            parameter.data = state[name]
    if way == 'data':
        model.eval()


@pytest.mark.parametrize('way', ['load', 'in place', 'data'])
@pytest.mark.parametrize('gradients', [False, True])
def test_new_weights_are_used(way, gradients):
    model, fresh, x = made(), made(), torch.randn(1, 3, 64, 64)
    old = infer(model, x)
    renew(model, way)
    fresh.load_state_dict(model.state_dict())
    assert not torch.allclose(infer(fresh, x)[-1], old[-1], rtol=0.05)
    # A of the scan is kept for either; packed weights for inference.
    model.requires_grad_(False)
    with torch.set_grad_enabled(gradients):
        assert_near(model(x), infer(fresh, x))


@pytest.mark.parametrize(
    'deploy, backend', [(True, ''), (False, ''), (False, 'parallel')]
)
def test_compiled_code_holds_packed_weights_and_takes_new_ones(
    monkeypatch, deploy, backend
):
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', backend)
    model, x = made(deploy), torch.randn(1, 3, 70, 64)
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=keep)
    with torch.no_grad():
        assert_near(compiled(x), model(x))
        renew(model)
        assert_near(compiled(x), model(x))
    if deploy and find_extension().inference is not None:
        assert 'feed_forward' in graphs[-1].code
        assert 'pad' not in graphs[-1].code


def test_copies_pickles_and_other_processors_compute_the_same(monkeypatch):
    model, x = made(), torch.randn(1, 3, 64, 64)
    wanted = infer(model, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(infer(other, x)[-1], wanted[-1])
        assert set(other.state_dict()) == set(model.state_dict())
    monkeypatch.setattr(find_extension(), 'inference', None)
    assert_near(infer(model, x), wanted)
    assert_near(infer(made(), x), wanted)

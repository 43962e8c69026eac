"""What runs in inference on a CPU computes what training computes."""

import copy
import pickle

import pytest
import torch

from mmmobilemamba.models.backbones import MobileMamba
from mmmobilemamba.models.layers import FusedConv2d
from mmmobilemamba.models.layers.conv_bn import ResidualDWConv, ResidualFFN
from mmmobilemamba.ops import find_extension

NANO = dict(channels=(64, 80, 96), depths=(1, 1, 1))
# float32, sums in another order.
TOLERANCE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_near(fast, plain):
    # Of a whole network by norm: single values may be what sums left over.
    error = torch.linalg.vector_norm(fast - plain)
    assert error <= 1e-4 * torch.linalg.vector_norm(plain)


def fill(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith('num_batches_tracked'):
            continue
        noise = torch.rand(tensor.shape, generator=generator)
        positive = 'running_var' in name or tensor.dim() == 1
        tensor.copy_(noise + 0.5 if positive else 0.3 * (noise - 0.5))
    return module.eval()


def both(module, *args):
    """Return the outputs by PyTorch's operators, and in inference."""
    with torch.enable_grad():
        plain = module(*args)
    with torch.inference_mode():
        return plain, module(*args)


@pytest.mark.parametrize('act', [None, 'relu', 'silu'])
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(in_channels=24, out_channels=40, kernel_size=1),
        dict(in_channels=3, out_channels=8, kernel_size=3, stride=2),
        dict(in_channels=20, out_channels=20, kernel_size=5, groups=20),
        dict(in_channels=20, out_channels=20, kernel_size=1, groups=20),
        dict(in_channels=16, out_channels=16, kernel_size=4, groups=16),
        dict(
            in_channels=16,
            out_channels=16,
            kernel_size=3,
            stride=2,
            groups=16,
        ),
        dict(
            in_channels=8,
            out_channels=8,
            kernel_size=3,
            groups=8,
            bias=False,
        ),
    ],
)
def test_convolution(kwargs, act):
    conv = fill(FusedConv2d(padding=kwargs['kernel_size'] // 2, **kwargs))
    x = torch.randn(2, 2 * conv.in_channels, 11, 7)
    x = x.contiguous(memory_format=torch.channels_last)
    for part in (x[:, : conv.in_channels], x[:, conv.in_channels :].clone()):
        plain, fast = both(conv, part, act)
        torch.testing.assert_close(fast, plain, **TOLERANCE)
        add = torch.randn_like(plain)
        kept = add.clone()
        plain, fast = both(conv, part, act, add)
        torch.testing.assert_close(fast, plain, **TOLERANCE)
        assert torch.equal(add, kept)


def operators(module, *args, **kwargs):
    """Return the names of the operators that run in inference."""
    with torch.inference_mode(), torch.autograd.profiler.profile() as profile:
        module(*args, **kwargs)
    return {event.name for event in profile.function_events}


@pytest.mark.parametrize('height', [11, 40])
def test_convolution_that_halves_a_map(height):
    conv = fill(FusedConv2d(24, 40, 3, stride=2, padding=1))
    x = torch.randn(2, 24, height, 13)
    plain, fast = both(conv, x, 'relu')
    torch.testing.assert_close(fast, plain, **TOLERANCE)


@pytest.mark.parametrize('filtered', [False, True])
@pytest.mark.parametrize('shortcut', [False, True])
def test_feed_forward_with_what_is_around_it(filtered, shortcut):
    part = fill(ResidualFFN(40, deploy=True))
    kwargs = {}
    if filtered:
        kwargs['before'] = fill(ResidualDWConv(40, deploy=True), seed=1)
    if shortcut:
        kwargs['add'] = torch.randn(2, 40, 9, 7)
    x = torch.randn(2, 40, 9, 7)
    with torch.enable_grad():
        plain = kwargs['before'](x) if filtered else x
        plain = part(plain)
        plain = plain + kwargs['add'] if shortcut else plain
        torch.testing.assert_close(part(x, **kwargs), plain)
    with torch.inference_mode():
        torch.testing.assert_close(part(x, **kwargs), plain, **TOLERANCE)
    if find_extension().products is not None:
        ran = operators(part, x, **kwargs)
        assert 'selective_scan::feed_forward' in ran
        assert not ran & {'aten::add', 'aten::add_', 'aten::conv2d'}
        assert 'selective_scan::depthwise_conv2d' not in ran


@pytest.mark.parametrize(
    'choices',
    [
        dict(),
        dict(scan_directions=1),
        dict(scan_directions=4, d_state=2),
        dict(wavelet_levels=2, local_splits=2),
        dict(wavelet_levels=0, ssm_ratio=1.5),
    ],
)
@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('size', [(65, 97), (128, 64)])
def test_backbone(choices, deploy, size):
    model = fill(MobileMamba(arch=dict(NANO, **choices)))
    if deploy:
        model.switch_to_deploy()
    plain, fast = both(model, torch.randn(2, 3, *size))
    for a, b in zip(fast, plain, strict=True):
        assert_near(a, b)


def test_packs_of_onednn_are_made_once_for_a_size(monkeypatch):
    conv = fill(FusedConv2d(24, 40, 1, groups=2))
    made = []
    pack = torch.ops.mkldnn._reorder_convolution_weight

    def count(*args):
        made.append(tuple(args[-1]))
        return pack(*args)

    monkeypatch.setattr(torch.ops.mkldnn, '_reorder_convolution_weight', count)
    sizes = [(1, 24, 6, 6), (1, 24, 6, 6), (1, 24, 7, 7)]
    with torch.no_grad():
        for size in sizes:
            conv(torch.randn(size))
    assert made == [sizes[0], sizes[2]]


@pytest.mark.skipif(
    find_extension().products is None, reason='no products here'
)
def test_packs_of_the_extension_are_made_once(monkeypatch):
    conv = fill(FusedConv2d(24, 40, 3, padding=1))
    kernels, made = find_extension().products, []
    pack = kernels.pack_matrix

    def count(weight):
        made.append(weight.shape)
        return pack(weight)

    monkeypatch.setattr(kernels, 'pack_matrix', count)
    with torch.no_grad():
        for size in (6, 6, 7):
            conv(torch.randn(1, 24, size, size))
    assert made == [(40, 24, 3, 3)]


@pytest.mark.skipif(
    find_extension().products is None, reason='no products here'
)
def test_new_weights_are_used():
    model = fill(MobileMamba(arch=NANO))
    model.switch_to_deploy()
    x = torch.randn(1, 3, 64, 64)
    before = both(model, x)[1][-1]
    state = copy.deepcopy(model.state_dict())
    for name, tensor in state.items():
        state[name] = tensor * (1.5 if tensor.dim() > 1 else 0.7)
    model.load_state_dict(state)
    plain, fast = both(model, x)
    assert not torch.allclose(fast[-1], before, rtol=0.05)
    assert_near(fast[-1], plain[-1])


@pytest.mark.parametrize('deploy', [False, True])
def test_weights_exchanged_behind_autograd_are_used(deploy):
    """mmengine's EMAHook swaps the data of parameters, then calls eval."""
    model = fill(MobileMamba(arch=NANO))
    if deploy:
        model.switch_to_deploy()
    x = torch.randn(1, 3, 64, 64)
    before = both(model, x)[1][-1]
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data * 1.3)
    model.eval()
    plain, fast = both(model, x)
    assert not torch.allclose(fast[-1], before, rtol=0.05)
    assert_near(fast[-1], plain[-1])


def test_copies_and_pickles_hold_no_packed_weights():
    model = fill(MobileMamba(arch=NANO))
    x = torch.randn(1, 3, 64, 64)
    size = len(pickle.dumps(model))
    out = both(model, x)[1][-1]
    names = set(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(both(other, x)[1][-1], out)
        assert set(other.state_dict()) == names
    assert len(pickle.dumps(model)) < 1.01 * size


def test_an_extension_without_these_kernels_serves(monkeypatch):
    model = fill(MobileMamba(arch=NANO))
    model.switch_to_deploy()
    x = torch.randn(1, 3, 64, 64)
    expected = both(model, x)[1][-1]
    # As on a processor for which there is plain code alone.
    monkeypatch.setattr(find_extension(), 'products', None)
    assert_near(both(model, x)[1][-1], expected)
    monkeypatch.setattr(find_extension(), 'inference', None)
    assert_near(both(model, x)[1][-1], expected)


def test_tracing_sees_ordinary_operators():
    model = fill(MobileMamba(arch=NANO))
    model.switch_to_deploy()
    with torch.no_grad():
        graph = torch.jit.trace(model, torch.randn(1, 3, 64, 64)).inlined_graph
    text = str(graph)
    assert 'aten::_convolution' in text
    assert 'mkldnn' not in text
    assert 'depthwise_conv2d' not in text


def test_autocast_keeps_its_dtype():
    model = fill(MobileMamba(arch=NANO))
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        out = model.stages[0].blocks[0].ffn0.pw1.conv(torch.randn(1, 64, 4, 4))
    assert out.dtype == torch.bfloat16

"""The pyramid: levels, order of its parts, initial values, bad input."""

import pytest
import torch
import torch.nn.functional as F

from mmmobilemamba.models import DeconvFPN

CHANNELS = (10, 12, 14)
STRIDES = (16, 32, 64)


def make_maps(size=(8, 8)):
    """Return three maps of strides 16, 32, 64, sides rounded up."""
    sizes = [[-(-side // 2**i) for side in size] for i in range(3)]
    return [torch.randn(2, c, *x) for c, x in zip(CHANNELS, sizes)]


def reference(neck, maps, num_finer, num_coarser):
    """Compute the pyramid with plain functions from the neck's weights."""
    weights = dict(neck.named_parameters())

    def conv(name, x, function=F.conv2d, **kwargs):
        named = (weights[f'{name}.conv.{k}'] for k in ('weight', 'bias'))
        return function(x, *named, **kwargs)

    p16, p32, p64 = (conv(f'lateral_convs.{i}', x) for i, x in enumerate(maps))
    p32 = p32 + F.interpolate(p64, size=p32.shape[2:], mode='nearest')
    p16 = p16 + F.interpolate(p32, size=p16.shape[2:], mode='nearest')
    chain = [p16]
    for i in range(num_finer):
        name = f'extra_trans_convs.{i}'
        chain.append(conv(name, chain[-1], F.conv_transpose2d, stride=2))
    named = [(f'extra_fpn_convs.{i}', x) for i, x in enumerate(chain[:0:-1])]
    named += [(f'fpn_convs.{i}', x) for i, x in enumerate((p16, p32, p64))]
    outs = [conv(name, x, padding=1) for name, x in named]
    x = maps[-1]
    for i in range(num_coarser):
        x = conv(f'fpn_convs.{3 + i}', x, padding=1, stride=2)
        outs.append(x)
    return outs


@pytest.mark.parametrize(
    'num_finer, num_coarser', [(0, 0), (2, 0), (1, 1), (3, 2)]
)
@pytest.mark.parametrize('size', [(8, 8), (5, 7)])
def test_levels(num_finer, num_coarser, size):
    torch.manual_seed(0)
    neck = DeconvFPN(CHANNELS, 8, num_finer=num_finer, num_coarser=num_coarser)
    maps = make_maps(size)
    outs = neck(maps)
    expected = reference(neck, maps, num_finer, num_coarser)
    for out, want in zip(outs, expected, strict=True):
        torch.testing.assert_close(out, want)
    sum(out.square().mean() for out in outs).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_initial_values():
    """Xavier for ordinary convolutions, PyTorch's own for transposed ones."""
    neck = DeconvFPN((64, 64), 64, num_finer=1, num_coarser=1)
    neck.init_weights()
    for name, parameter in neck.named_parameters():
        if name.startswith('extra_trans_convs'):
            bound = (64 * 2 * 2) ** -0.5
        elif name.endswith('weight'):
            bound = (6 / (2 * 64 * parameter[0, 0].numel())) ** 0.5
        else:
            bound = 0
        assert 0.8 * bound <= parameter.abs().max() <= bound, name


def test_strides_say_the_same_as_numbers():
    by_number = DeconvFPN(CHANNELS, 8, num_finer=1, num_coarser=1)
    strides = dict(in_strides=STRIDES, out_strides=(8, *STRIDES, 128))
    by_stride = DeconvFPN(CHANNELS, 8, **strides)
    by_stride.load_state_dict(by_number.state_dict())
    maps = make_maps()
    for ours, theirs in zip(by_stride(maps), by_number(maps), strict=True):
        assert torch.equal(ours, theirs)


def test_coarser_maps_add_to_the_others():
    neck = DeconvFPN(CHANNELS, 8, in_strides=STRIDES, out_strides=(8, 16))
    maps = make_maps()
    outs = neck(maps)
    assert [o.shape[2] for o in outs] == [16, 8]
    maps[2] = maps[2] + 1
    for before, after in zip(outs, neck(maps), strict=True):
        assert not torch.equal(before, after)


@pytest.mark.parametrize(
    'named, kwargs',
    [
        ('in_strides', dict(out_strides=(8, 16))),
        ('out_strides', dict(in_strides=(4, 8, 16), out_strides=(4, 16))),
        ('in_strides', dict(in_strides=(8,), out_strides=(8,))),
    ],
)
def test_bad_strides(named, kwargs):
    with pytest.raises(ValueError, match=named):
        DeconvFPN(CHANNELS, 8, **kwargs)

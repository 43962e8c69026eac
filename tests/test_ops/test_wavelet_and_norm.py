"""The Haar transform against published filters, and the gated norm."""

import pytest
import torch
import torch.nn.functional as F

from mmmobilemamba.checkpoints.key_map import haar_filters
from mmmobilemamba.ops import (
    find_extension,
    gated_layer_norm,
    wavelet_conv2d,
)
from mmmobilemamba.ops.wavelet import haar_dwt2d, haar_iwt2d

SIZES = [(2, 2), (1, 1), (5, 8), (6, 7), (9, 9)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_equals_strided_convolution(size, layout):
    x = torch.randn(2, 3, *size).contiguous(memory_format=layout)
    padded = F.pad(x, (0, size[1] % 2, 0, size[0] % 2))
    filters = haar_filters(3)
    bands = F.conv2d(padded, filters, stride=2, groups=3)
    torch.testing.assert_close(haar_dwt2d(x), bands)
    torch.testing.assert_close(haar_iwt2d(bands, size), x)


@pytest.mark.skipif(find_extension().module is None, reason='no extension')
@pytest.mark.parametrize('size', SIZES)
def test_extension_and_plain_form_agree(size):
    weight = torch.randn(12, 1, 3, 3)
    # A slice of channels, as the mixer gives it.
    x = torch.randn(2, 5, *size)[:, :3]
    results = []
    for backend in ('extension', 'parallel'):
        leaves = [t.clone().requires_grad_() for t in (x, weight)]
        y = wavelet_conv2d(leaves[0], leaves[1:], backend)
        factors = torch.linspace(-1, 2, y.numel()).view(y.shape)
        grads = torch.autograd.grad((y * factors).sum(), leaves)
        results.append([y, *grads])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('backend', ['parallel', 'extension'])
@pytest.mark.parametrize('last', [False, True])
def test_gated_norm_is_its_definition(backend, last):
    if backend == 'extension' and find_extension().module is None:
        pytest.skip('no extension')
    x = torch.randn(2, 7, 6)
    both = torch.randn(2, 10, 6)
    if last:
        x, both = (
            t.transpose(1, 2).contiguous().transpose(1, 2) for t in (x, both)
        )
    x = x.requires_grad_()
    z = both[:, 3:].requires_grad_()
    weight, bias = torch.rand(7, requires_grad=True), torch.randn(7)
    leaves = (x, z, weight, bias.requires_grad_())
    y = gated_layer_norm(*leaves, 1e-5, backend)
    assert y.shape == x.shape
    norm = F.layer_norm(x.mT, (7,), weight, bias, 1e-5).mT
    wanted = norm * F.silu(z)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    half = gated_layer_norm(
        x.bfloat16(), z.bfloat16(), weight, bias, 1e-5, backend
    )
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.05, atol=0.05)
    factors = torch.randn_like(y)
    for got, want in zip(
        torch.autograd.grad((y * factors).sum(), leaves),
        torch.autograd.grad((wanted * factors).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)

"""The Haar transform against the filter bank of published files."""

import pytest
import torch
import torch.nn.functional as F

from mmmobilemamba.checkpoints.key_map import haar_filters
from mmmobilemamba.ops import (
    find_extension,
    haar_dwt2d,
    haar_iwt2d,
    wavelet_conv2d,
)

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
    back = F.conv_transpose2d(bands, filters, stride=2, groups=3)
    torch.testing.assert_close(haar_iwt2d(bands), back)
    torch.testing.assert_close(haar_iwt2d(bands, size), x)


@pytest.mark.skipif(find_extension().module is None, reason='no extension')
@pytest.mark.parametrize('size', SIZES)
def test_extension_and_plain_form_agree(size):
    weight = torch.randn(12, 1, 3, 3)
    scale = torch.rand(1, 12, 1, 1)
    # A slice of channels, as the mixer gives it.
    x = torch.randn(2, 5, *size)[:, :3]
    results = []
    for backend in ('extension', 'parallel'):
        leaves = [t.clone().requires_grad_() for t in (x, weight, scale)]
        y = wavelet_conv2d(*leaves, backend)
        factors = torch.linspace(-1, 2, y.numel()).view(y.shape)
        grads = torch.autograd.grad((y * factors).sum(), leaves)
        results.append([y, *grads])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)

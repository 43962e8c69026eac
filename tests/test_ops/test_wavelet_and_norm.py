"""The Haar transform against published filters, and the gated norm."""

import pytest
import torch
import torch.nn.functional as F

from mmmobilemamba.checkpoints.key_map import haar_filters
from mmmobilemamba.ops import gated_layer_norm
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


def test_gated_norm_is_its_definition():
    x = torch.randn(2, 7, 6, requires_grad=True)
    z = torch.randn(2, 10, 6)[:, 3:].requires_grad_()
    weight, bias = torch.rand(2, 7, requires_grad=True).unbind()
    leaves = (x, z, weight, bias)
    y = gated_layer_norm(*leaves, 1e-5, 'parallel')
    wanted = F.layer_norm(x.mT, (7,), weight, bias, 1e-5).mT * F.silu(z)
    factors = torch.randn_like(y)
    for got, want in zip(
        (y, *torch.autograd.grad((y * factors).sum(), leaves)),
        (wanted, *torch.autograd.grad((wanted * factors).sum(), leaves)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    half = (t.bfloat16() for t in (x, z))
    half = gated_layer_norm(*half, weight, bias, 1e-5, 'parallel')
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.05, atol=0.05)

"""The Haar transform against published filters, and the gated norm."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmobilemamba.checkpoints.key_map import haar_filters
from mmmobilemamba.ops import gated_layer_norm
from mmmobilemamba.ops.wavelet import haar_dwt2d, haar_iwt2d


@pytest.mark.parametrize('size', [(2, 2), (1, 1), (5, 8), (6, 7)])
def test_equals_strided_convolution(size):
    x = torch.randn(2, 3, *size)
    padded = F.pad(x, (0, size[1] % 2, 0, size[0] % 2))
    bands = F.conv2d(padded, haar_filters(3), stride=2, groups=3)
    torch.testing.assert_close(haar_dwt2d(x), bands)
    torch.testing.assert_close(haar_iwt2d(bands, size), x)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gated_norm_is_its_definition(dtype):
    x, z = torch.randn(2, 2, 7, 6, requires_grad=True)
    norm = nn.LayerNorm(7)
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    leaves = (x, z, norm.weight, norm.bias)
    y = gated_layer_norm(x.to(dtype), z.to(dtype), norm, 'parallel')
    wanted = norm(x.mT).mT * F.silu(z)
    assert y.dtype == dtype
    error = 1e-5 if dtype == torch.float32 else 0.05
    for got, want in zip(
        (y.float(), *torch.autograd.grad(y.sum(), leaves)),
        (wanted, *torch.autograd.grad(wanted.sum(), leaves)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=error, atol=error)

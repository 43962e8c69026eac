"""The Haar transform against the filter bank of published files."""

import pytest
import torch
import torch.nn.functional as F

from mmmobilemamba.checkpoints.key_map import haar_filters
from mmmobilemamba.models.layers import haar_dwt2d, haar_iwt2d

SIZES = [(2, 2), (1, 1), (5, 8), (6, 7), (9, 9), (16, 12)]


@pytest.mark.parametrize('size', SIZES)
def test_inverse_restores_the_map(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(haar_iwt2d(haar_dwt2d(x), size), x)


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


def test_transform_is_orthonormal():
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    assert torch.isclose(haar_dwt2d(x).norm(), x.norm())


def test_gradients_are_exact():
    x = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(haar_dwt2d, (x,))
    y = torch.randn(1, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: haar_iwt2d(y, (3, 5)), (y,))

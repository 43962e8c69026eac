"""The gated norm, by the extension and by PyTorch's operators."""

import pytest
import torch
import torch.nn.functional as F

from mmmobilemamba.ops import find_extension, gated_layer_norm

BACKENDS = ['parallel']
if find_extension().module is not None:
    BACKENDS.append('extension')


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('last', [False, True])
def test_equals_its_definition(backend, last):
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
    factors = torch.randn_like(y)
    for got, want in zip(
        torch.autograd.grad((y * factors).sum(), leaves),
        torch.autograd.grad((wanted * factors).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('backend', BACKENDS)
def test_keeps_the_dtype_of_its_input(backend):
    x = torch.randn(1, 5, 4)
    weight, bias = torch.rand(5), torch.randn(5)
    wanted = gated_layer_norm(x, x, weight, bias, backend=backend)
    half = x.bfloat16()
    got = gated_layer_norm(half, half, weight, bias, backend=backend)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.05)

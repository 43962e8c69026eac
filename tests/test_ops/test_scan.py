"""The scan against its equations, and the choice of a backend."""

import sys

import pytest
import torch

from mmmobilemamba.ops import (
    BACKENDS,
    ENV_NAME,
    bidirectional_scan,
    find_extension,
    scan,
    scan_backend,
)
from mmmobilemamba.ops.scan_pytorch import (
    linear_recurrence,
    recurrence_loop,
)

# Relative to the largest value of the float64 reference.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}


def assert_close(got, wanted, dtype=torch.float64):
    assert got.dtype == dtype and torch.isfinite(got).all()
    error = (got.double() - wanted).abs().max()
    assert error <= TOLERANCE[dtype] * wanted.abs().max().clamp(min=1e-3)


def made_inputs(state=1, directions=2):
    torch.manual_seed(0)
    inner, length, rank = 5, 33, 3
    shapes = [(2, inner, length), (2, directions, rank + 2 * state, length)]
    shapes += [(directions, inner, size) for size in (rank, 1, state, 1)]
    u, rows, dt_proj, dt_bias, A, D = (
        torch.rand(shape, dtype=torch.float64) * 2 - 1 for shape in shapes
    )
    return u, 2 * rows, dt_proj, dt_bias[..., 0], A - 1.1, D[..., 0]


def by_equations(u, proj, dt_proj, dt_bias, A, D):
    """Mamba's equations (arXiv:2312.00752), token by token."""
    state, order = A.shape[2], range(u.shape[2])
    y = u * D.sum(0)[:, None]
    for k in range(A.shape[0]):
        dt, B, C = proj[:, k].split([dt_proj.shape[2], state, state], dim=1)
        step = torch.log1p((dt_proj[k] @ dt + dt_bias[k][:, None]).exp())
        h = 0
        for t in reversed(order) if k == 1 else order:
            inflow = step[..., t] * u[..., t]
            h = (step[..., t, None] * A[k]).exp() * h
            h = h + inflow[..., None] * B[:, None, :, t]
            y[..., t] += (h * C[:, None, :, t]).sum(-1)
    return y


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('state', [1, 8])
@pytest.mark.parametrize('directions', [1, 2])
def test_equations(backend, dtype, state, directions):
    if backend == 'extension' and find_extension().module is None:
        pytest.skip('no extension')
    inputs = [x.to(dtype) for x in made_inputs(state, directions)]
    wanted = by_equations(*(x.double() for x in inputs))
    assert_close(bidirectional_scan(*inputs, backend), wanted, dtype)
    # Tokens of a map in channels_last.
    inputs[:2] = [x.mT.contiguous().mT for x in inputs[:2]]
    assert_close(bidirectional_scan(*inputs, backend), wanted, dtype)


@pytest.mark.parametrize('length', [1, 2, 16, 17, 33, 64, 1024])
@pytest.mark.parametrize('reverse', [False, True])
def test_merged_steps_give_the_loop(length, reverse):
    """Where decays are 0, too."""
    a, b, factors = torch.rand(3, 2, length, 3, dtype=torch.float64)
    leaves = ((a * (a > 0.2)).requires_grad_(), b.requires_grad_())
    results = []
    for recurrence in (linear_recurrence, recurrence_loop):
        h = recurrence(*leaves, reverse)
        results.append((h, *torch.autograd.grad((h * factors).sum(), leaves)))
    for got, wanted in zip(*results, strict=True):
        assert_close(got, wanted)


@pytest.fixture
def said(monkeypatch):
    """Keep the warnings."""
    messages = []
    scan._warn_once.cache_clear()
    monkeypatch.setattr(scan, 'print_log', lambda x, *_: messages.append(x))
    yield messages
    scan._warn_once.cache_clear()


@pytest.mark.parametrize(
    'version, named',
    # Without a version the module breaks as one for another torch does.
    [(None, 'pip install'), ('0.5.0', '0.5.0'), ('', '__version__')],
)
def test_choice_of_the_backend(monkeypatch, said, version, named):
    # None in sys.modules is how Python says that an import fails.
    module = None if version is None else type(sys)('selective_scan')
    if version:
        module.__version__ = version
    monkeypatch.setitem(sys.modules, 'selective_scan', module)
    monkeypatch.setattr(scan, '_extension', None)
    monkeypatch.delenv(ENV_NAME, raising=False)
    assert [scan_backend(), scan_backend()] == ['parallel', 'parallel']
    assert len(said) == 1 and named in said[0]
    monkeypatch.setenv(ENV_NAME, 'reference')
    assert scan_backend() == 'reference'
    monkeypatch.setenv(ENV_NAME, 'triton')
    with pytest.raises(ValueError, match='extension.*triton'):
        scan_backend()
    monkeypatch.setenv(ENV_NAME, 'extension')
    with pytest.raises(ImportError, match=named):
        scan_backend()


@pytest.mark.skipif(find_extension().module is None, reason='no extension')
def test_device_without_kernels_falls_back(monkeypatch, said):
    inputs = made_inputs()
    wanted = bidirectional_scan(*inputs, 'parallel')
    monkeypatch.setattr(find_extension(), 'devices', ('cuda',))
    for _ in range(2):
        assert torch.equal(bidirectional_scan(*inputs, 'extension'), wanted)
    assert len(said) == 1 and 'cpu' in said[0]

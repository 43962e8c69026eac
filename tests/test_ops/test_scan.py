"""The scan against its equations, and the choice of a backend.

The kernels have tests of their own, in the extension.
"""

import sys

import pytest
import torch
from mmengine.logging import MMLogger

from mmmobilemamba.ops import (
    BACKENDS,
    backend,
    bidirectional_scan,
    find_extension,
    scan_backend,
)
from mmmobilemamba.ops.scan import linear_recurrence, recurrence_loop

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


def made_inputs(state=1, directions=2, inner=5, length=33, rank=3):
    g = torch.Generator().manual_seed(0)

    def made(*shape, low=-1.0, high=1.0):
        values = torch.rand(shape, generator=g, dtype=torch.float64)
        return values * (high - low) + low

    rows = rank + 2 * state
    return (
        made(2, inner, length),
        made(2, directions, rows, length, low=-2, high=2),
        made(directions, inner, rank),
        made(directions, inner),
        made(directions, inner, state, low=-2, high=-0.1),
        made(directions, inner),
    )


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
    # Tokens of a contiguous map, and of one in channels_last.
    for _ in range(2):
        assert_close(bidirectional_scan(*inputs, backend), wanted, dtype)
        for i in range(2):
            inputs[i] = inputs[i].mT.contiguous().mT


@pytest.mark.parametrize('length', [1, 2, 7, 8, 9, 64, 65, 1024])
@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('low', [0.0, 0.5])
def test_chunks_give_the_loop(length, reverse, low):
    """With decays that underflow to zero, too."""
    g = torch.Generator().manual_seed(0)
    a, b, factors = torch.rand(3, 2, length, 3, generator=g).double().unbind()
    a = (a * 0.5 + low) * (a > 0.2)
    results = []
    for recurrence in (linear_recurrence, recurrence_loop):
        leaves = (a.requires_grad_(), b.requires_grad_())
        h = recurrence(*leaves, reverse)
        results.append((h, *torch.autograd.grad((h * factors).sum(), leaves)))
    for got, wanted in zip(*results, strict=True):
        assert_close(got, wanted)
    with torch.no_grad():
        assert_close(linear_recurrence(a, b, reverse), results[1][0])


def test_recurrence_has_second_derivatives():
    a, b = torch.rand(2, 1, 11, 2, dtype=torch.float64).unbind()
    inputs = (a.requires_grad_(), b.requires_grad_(), False)
    assert torch.autograd.gradgradcheck(linear_recurrence, inputs)


@pytest.fixture
def said(monkeypatch):
    """Keep the warnings."""
    messages = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda _, text: messages.append(text))
    backend._warn_once.cache_clear()
    yield messages
    backend._warn_once.cache_clear()


def put_extension(monkeypatch, module):
    # None in sys.modules is how Python says that an import fails.
    monkeypatch.setitem(sys.modules, 'selective_scan', module)
    monkeypatch.setattr(backend, '_extension', None)


def test_choice_by_hand(monkeypatch):
    for name in ('parallel', 'reference'):
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', name)
        assert scan_backend() == name
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'triton')
    with pytest.raises(ValueError, match='triton.*extension, parallel'):
        scan_backend()
    put_extension(monkeypatch, None)
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'extension')
    with pytest.raises(ImportError, match='selective_scan.*pip install'):
        scan_backend()


@pytest.mark.parametrize(
    'version, named',
    # Without a version the module breaks as one for another torch does.
    [('absent', 'pip install'), ('0.5.0', '0.5.0'), ('', 'does not load')],
)
def test_absent_old_or_broken_extension(monkeypatch, said, version, named):
    module = type(sys)('selective_scan')
    if version:
        module.__version__ = version
    put_extension(monkeypatch, None if version == 'absent' else module)
    monkeypatch.delenv('MMMOBILEMAMBA_SCAN', raising=False)
    assert [scan_backend(), scan_backend()] == ['parallel', 'parallel']
    assert len(said) == 1 and named in said[0]


@pytest.mark.skipif(find_extension().module is None, reason='no extension')
def test_device_without_kernels_falls_back(monkeypatch, said):
    inputs = made_inputs()
    wanted = bidirectional_scan(*inputs, 'parallel')
    monkeypatch.setattr(find_extension(), 'devices', ('cuda',))
    for _ in range(2):
        assert torch.equal(bidirectional_scan(*inputs, 'extension'), wanted)
    assert len(said) == 1 and 'cpu' in said[0]

"""The scan against the loop over tokens, and the choice of a backend."""

import sys

import pytest
import torch
from mmengine.logging import MMLogger

from mmmobilemamba.ops import (
    bidirectional_scan,
    find_extension,
    scan,
    scan_backend,
    scan_pytorch,
)

# Relative to the largest value of the float64 reference.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}
BACKENDS = ['parallel']
if find_extension().module is not None:
    BACKENDS.append('extension')


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def assert_close(got, wanted, dtype, name=''):
    assert torch.isfinite(got).all(), name
    error = (got.double() - wanted).abs().max()
    scale = wanted.abs().max().clamp(min=1e-3)
    assert error <= TOLERANCE[dtype] * scale, (name, error / scale)


def made_inputs(batch=2, inner=6, length=9, state=1, rank=3, directions=2):
    g = torch.Generator().manual_seed(0)

    def made(*shape, low=-1.0, high=1.0):
        values = torch.rand(shape, generator=g, dtype=torch.float64)
        return values * (high - low) + low

    return {
        'u': made(batch, inner, length),
        'proj': made(
            batch, directions, rank + 2 * state, length, low=-2, high=2
        ),
        'dt_proj': made(directions, inner, rank),
        'dt_bias': made(directions, inner),
        'A': made(directions, inner, state, low=-2, high=-0.1),
        'D': made(directions, inner),
    }


def run_with_grads(backend, inputs, dtype=torch.float64):
    """Return output and gradients, weighted so that no two terms cancel."""
    inputs = {
        name: value.detach().to(dtype).requires_grad_()
        for name, value in inputs.items()
    }
    out = bidirectional_scan(**inputs, backend=backend)
    weight = torch.linspace(0.5, 1.5, out.numel(), dtype=torch.float64)
    (out.double() * weight.view(out.shape)).sum().backward()
    return out, {name: value.grad for name, value in inputs.items()}


def compare(backend, inputs, dtype=torch.float64):
    """Compare with the float64 loop on inputs rounded to dtype."""
    rounded = {k: v.to(dtype) for k, v in inputs.items()}
    wanted, wanted_grads = run_with_grads('reference', rounded)
    got, grads = run_with_grads(backend, inputs, dtype)
    assert got.dtype == dtype
    assert_close(got, wanted, dtype, 'output')
    for name, grad in grads.items():
        assert_close(grad, wanted_grads[name], dtype, name)


def test_loop_is_the_equations():
    # Two tokens of one channel, by hand.
    one = torch.tensor
    u, dt = one([2.0, 3.0]), one([0.0, 1.0])
    B, C = one([1.0, -1.0]), one([2.0, 0.5])
    delta = torch.log1p(torch.exp(0.5 * dt + 0.1))
    A, D = -0.7, 0.3
    first = delta[0] * B[0] * u[0]
    second = torch.exp(delta[1] * A) * first + delta[1] * B[1] * u[1]
    got = bidirectional_scan(
        u.view(1, 1, 2),
        torch.stack((dt, B, C)).view(1, 1, 3, 2),
        one([[[0.5]]]),
        one([[0.1]]),
        one([[[A]]]),
        one([[D]]),
        backend='reference',
    )
    wanted = C * torch.stack((first, second)) + D * u
    torch.testing.assert_close(got.flatten(), wanted)


@pytest.mark.parametrize('length', [1, 2, 7, 8, 9, 64, 65, 1024])
def test_lengths(backend, length):
    compare(backend, made_inputs(length=length))


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('state', [1, 8])
@pytest.mark.parametrize('directions', [1, 2])
def test_dtypes(backend, dtype, state, directions):
    sizes = dict(inner=5, length=33, state=state, directions=directions)
    compare(backend, made_inputs(**sizes), dtype)


def test_backward_direction_reads_flipped_tokens(backend):
    inputs = made_inputs(length=21)
    inputs['proj'][:, 0, -1] = 0  # no output from the forward direction
    inputs['D'].zero_()
    got = bidirectional_scan(**inputs, backend=backend)
    only = {
        name: value[:, 1:] if name == 'proj' else value[1:]
        for name, value in inputs.items()
        if name != 'u'
    }
    only['proj'] = only['proj'].flip(-1)
    flipped = bidirectional_scan(inputs['u'].flip(-1), **only, backend=backend)
    torch.testing.assert_close(got, flipped.flip(-1))


@pytest.mark.parametrize('batch', [1, 3])
def test_channels_last_maps(backend, batch):
    inputs = made_inputs(batch=batch, inner=8, length=35)
    wanted = bidirectional_scan(**inputs, backend='reference')
    for name in ('u', 'proj'):
        value = inputs[name]
        inputs[name] = value.transpose(-1, -2).contiguous().transpose(-1, -2)
    got = bidirectional_scan(**inputs, backend=backend)
    assert_close(got, wanted, torch.float64)


def test_decay_underflows_to_zero_not_to_nan(backend):
    inputs = made_inputs(length=64)
    inputs['dt_bias'] += 50
    inputs['A'] *= 100
    compare(backend, inputs, torch.float32)


def test_recurrence_has_second_derivatives():
    a, b = torch.rand(2, 1, 11, 2, dtype=torch.float64).unbind()
    inputs = (a.requires_grad_(), b.requires_grad_(), False)
    function = scan_pytorch.linear_recurrence
    assert torch.autograd.gradgradcheck(function, inputs)


class TestBackendChoice:
    @pytest.fixture
    def said(self, monkeypatch):
        messages = []
        logger = MMLogger.get_current_instance()
        monkeypatch.setattr(
            logger, 'log', lambda _, text: messages.append(text)
        )
        scan._warn_once.cache_clear()
        yield messages
        scan._warn_once.cache_clear()

    def without_extension(self, monkeypatch, module=None):
        # None in sys.modules is how Python says that an import fails.
        monkeypatch.setitem(sys.modules, 'selective_scan', module)
        monkeypatch.setattr(scan, '_extension', None)

    def test_choice_by_hand(self, monkeypatch):
        for name in ('parallel', 'reference'):
            monkeypatch.setenv('MMMOBILEMAMBA_SCAN', name)
            assert scan_backend() == name
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'triton')
        with pytest.raises(ValueError, match='triton.*extension, parallel'):
            scan_backend()
        self.without_extension(monkeypatch)
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'extension')
        with pytest.raises(ImportError, match='selective_scan.*pip install'):
            scan_backend()

    @pytest.mark.parametrize('version', ['absent', '0.5.0', ''])
    def test_absent_old_or_broken_extension(self, monkeypatch, said, version):
        # Without a version the module breaks as one for another torch does.
        module = type(sys)('selective_scan')
        if version:
            module.__version__ = version
        absent = version == 'absent'
        self.without_extension(monkeypatch, None if absent else module)
        monkeypatch.delenv('MMMOBILEMAMBA_SCAN', raising=False)
        assert [scan_backend(), scan_backend()] == ['parallel', 'parallel']
        assert len(said) == 1 and 'parallel' in said[0]
        named = 'pip install' if absent else version or 'does not load'
        assert named in said[0]

    @pytest.mark.skipif(len(BACKENDS) == 1, reason='no extension')
    def test_device_without_kernels_falls_back(self, monkeypatch, said):
        inputs = made_inputs()
        wanted = bidirectional_scan(**inputs, backend='parallel')
        monkeypatch.setattr(find_extension(), 'devices', ('cuda',))
        for _ in range(2):
            got = bidirectional_scan(**inputs, backend='extension')
            assert torch.equal(got, wanted)
        assert len(said) == 1 and 'cpu' in said[0]

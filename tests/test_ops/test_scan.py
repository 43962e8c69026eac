"""The scan operators against the loop over tokens, and the backend choice."""

import sys

import pytest
import torch
from mmengine.logging import MMLogger

from mmmobilemamba.ops import backend as backend_module
from mmmobilemamba.ops import (
    bidirectional_scan,
    parallel,
    reference,
    scan_backend,
    selective_scan,
)
from mmmobilemamba.ops.backend import find_extension

# Relative to the largest value of the float64 reference.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}
LENGTHS = (1, 2, 7, 8, 9, 49, 63, 64, 65, 196, 257, 1024)


def installed_backends() -> list[str]:
    """Return the backends to compare with the reference here."""
    have = find_extension().module is not None
    return ['parallel', *(['extension'] if have else [])]


@pytest.fixture(params=installed_backends())
def backend(request):
    return request.param


def assert_close(got, wanted, dtype, name=''):
    assert torch.isfinite(got).all(), name
    error = (got.double() - wanted).abs().max()
    scale = wanted.abs().max().clamp(min=1e-3)
    assert error <= TOLERANCE[dtype] * scale, (name, error / scale)


def made(shape, generator, low=-1.0, high=1.0):
    values = torch.rand(shape, generator=generator, dtype=torch.float64)
    return values * (high - low) + low


def bidirectional_inputs(
    batch=2, inner=6, length=9, state=1, rank=3, directions=2, seed=0
):
    g = torch.Generator().manual_seed(seed)
    rows = rank + 2 * state
    return {
        'u': made((batch, inner, length), g),
        'proj': made((batch, directions, rows, length), g, -2, 2),
        'dt_proj': made((directions, inner, rank), g),
        'dt_bias': made((directions, inner), g),
        'A': made((directions, inner, state), g, -2, -0.1),
        'D': made((directions, inner), g),
    }


def selective_inputs(batch=2, dim=6, length=9, state=1, groups=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        'u': made((batch, dim, length), g),
        'delta': made((batch, dim, length), g),
        'A': made((dim, state), g, -2, -0.1),
        'B': made((batch, groups, state, length), g),
        'C': made((batch, groups, state, length), g),
        'D': made((dim,), g),
        'delta_bias': made((dim,), g),
    }


def run_with_grads(function, inputs, dtype=torch.float64):
    """Return output and gradients, weighted so that no two terms cancel."""
    inputs = {
        name: value.detach().to(dtype).requires_grad_()
        for name, value in inputs.items()
    }
    out = function(**inputs)
    weight = torch.linspace(0.5, 1.5, out.numel(), dtype=torch.float64)
    (out.double() * weight.view(out.shape)).sum().backward()
    return out, {name: value.grad for name, value in inputs.items()}


def compare(function, naive, inputs, dtype):
    """Compare with the float64 reference on inputs rounded to dtype."""
    wanted, wanted_grads = run_with_grads(
        naive, {k: v.to(dtype) for k, v in inputs.items()}
    )
    got, grads = run_with_grads(function, inputs, dtype)
    assert got.dtype == dtype
    assert_close(got, wanted, dtype, 'output')
    for name, grad in grads.items():
        assert_close(grad, wanted_grads[name], dtype, name)


@pytest.mark.parametrize('length', LENGTHS)
def test_bidirectional_lengths(backend, length):
    inputs = bidirectional_inputs(length=length)
    compare(
        lambda **kw: bidirectional_scan(**kw, backend=backend),
        reference.bidirectional_scan,
        inputs,
        torch.float64,
    )


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('state', [1, 8])
@pytest.mark.parametrize('directions', [1, 2])
def test_bidirectional_dtypes(backend, dtype, state, directions):
    inputs = bidirectional_inputs(
        inner=5, length=33, state=state, directions=directions
    )
    compare(
        lambda **kw: bidirectional_scan(**kw, backend=backend),
        reference.bidirectional_scan,
        inputs,
        dtype,
    )


@pytest.mark.parametrize('batch', [1, 3])
def test_bidirectional_takes_channels_last_maps(backend, batch):
    inputs = bidirectional_inputs(batch=batch, inner=8, length=35)
    inputs = {k: v.float() for k, v in inputs.items()}
    wanted = bidirectional_scan(**inputs, backend='reference')
    for name in ('u', 'proj'):
        value = inputs[name]
        inputs[name] = value.transpose(-1, -2).contiguous().transpose(-1, -2)
    got = bidirectional_scan(**inputs, backend=backend)
    assert_close(got, wanted.double(), torch.float32)


@pytest.mark.parametrize('length', [1, 7, 8, 65])
@pytest.mark.parametrize('state,groups', [(1, 1), (8, 2), (1, 2)])
@pytest.mark.parametrize('reverse', [False, True])
def test_selective_scan(backend, length, state, groups, reverse):
    inputs = selective_inputs(length=length, state=state, groups=groups)
    settings = dict(delta_softplus=True, reverse=reverse)
    compare(
        lambda **kw: selective_scan(**kw, **settings, backend=backend),
        lambda **kw: reference.selective_scan(**kw, **settings),
        inputs,
        torch.float64,
    )


def test_selective_scan_without_optional_arguments(backend):
    inputs = selective_inputs(length=20)
    del inputs['D'], inputs['delta_bias']
    inputs['delta'] = inputs['delta'].abs()
    compare(
        lambda **kw: selective_scan(**kw, backend=backend),
        reference.selective_scan,
        inputs,
        torch.float64,
    )


def test_reverse_is_a_flip_of_the_tokens(backend):
    inputs = selective_inputs(length=21)
    flipped = {
        name: value.flip(-1) if value.dim() > 2 else value
        for name, value in inputs.items()
    }
    forwards = selective_scan(**flipped, delta_softplus=True, backend=backend)
    backwards = selective_scan(
        **inputs, delta_softplus=True, reverse=True, backend=backend
    )
    torch.testing.assert_close(backwards, forwards.flip(-1))


def test_decay_underflows_to_zero_not_to_nan(backend):
    inputs = bidirectional_inputs(length=64)
    inputs['dt_bias'] += 50
    inputs['A'] *= 100
    compare(
        lambda **kw: bidirectional_scan(**kw, backend=backend),
        reference.bidirectional_scan,
        inputs,
        torch.float32,
    )


def test_samples_of_a_batch_do_not_mix(backend):
    inputs = bidirectional_inputs(batch=3, length=50)
    whole = bidirectional_scan(**inputs, backend=backend)
    for i in range(3):
        alone = dict(inputs)
        alone['u'], alone['proj'] = (
            inputs[name][i : i + 1] for name in ('u', 'proj')
        )
        one = bidirectional_scan(**alone, backend=backend)
        torch.testing.assert_close(one[0], whole[i])


def test_parallel_gradcheck():
    inputs = bidirectional_inputs(batch=1, inner=2, length=17, rank=2)
    assert torch.autograd.gradcheck(
        parallel.bidirectional_scan,
        [value.requires_grad_() for value in inputs.values()],
    )


def test_recurrence_has_second_derivatives():
    g = torch.Generator().manual_seed(0)
    a, b = (made((1, 11, 2), g, 0.1, 0.9).requires_grad_() for _ in 'ab')
    assert torch.autograd.gradgradcheck(parallel.linear_recurrence, (a, b))


class TestBackendChoice:
    @pytest.fixture(autouse=True)
    def fresh_choice(self):
        backend_module._warn_once.cache_clear()
        yield
        backend_module._warn_once.cache_clear()

    @pytest.fixture
    def without_extension(self, monkeypatch):
        # None in sys.modules is how Python says that an import fails.
        monkeypatch.setitem(sys.modules, 'selective_scan', None)
        monkeypatch.setattr(backend_module, '_extension', None)

    def test_unknown_name_is_an_error(self, monkeypatch):
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'triton')
        with pytest.raises(ValueError, match='triton.*extension, parallel'):
            scan_backend()

    @pytest.mark.parametrize('name', ['parallel', 'reference'])
    def test_choice_by_hand(self, monkeypatch, name):
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', name)
        assert scan_backend() == name

    def test_missing_extension_asked_for_is_an_error(
        self, monkeypatch, without_extension
    ):
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'extension')
        with pytest.raises(ImportError, match='selective_scan.*pip install'):
            scan_backend()

    def test_device_without_kernels_falls_back(self, monkeypatch):
        found = find_extension()
        if found.module is None:
            pytest.skip('the extension is not installed')
        monkeypatch.setattr(found, 'devices', ('cuda',))
        inputs = bidirectional_inputs()
        assert torch.equal(
            bidirectional_scan(**inputs, backend='extension'),
            parallel.bidirectional_scan(**inputs),
        )

    def test_one_warning_names_the_remedy(
        self, monkeypatch, without_extension
    ):
        monkeypatch.delenv('MMMOBILEMAMBA_SCAN', raising=False)
        said = []
        logger = MMLogger.get_current_instance()
        monkeypatch.setattr(
            logger, 'log', lambda level, message: said.append(message)
        )
        assert [scan_backend(), scan_backend()] == ['parallel', 'parallel']
        assert len(said) == 1
        assert 'pip install' in said[0] and 'parallel' in said[0]

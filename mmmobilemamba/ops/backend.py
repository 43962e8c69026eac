"""Which implementation of the scan runs. The only importer of the extension.

``extension`` is the compiled ``selective_scan`` package, ``parallel`` plain
PyTorch over all tokens at once, ``reference`` the loop over tokens.
"""

import functools
import importlib
import logging
import os
from types import ModuleType

import torch
from mmengine.logging import print_log
from packaging.version import Version
from torch import Tensor

from . import parallel, reference

ENV_NAME = 'MMMOBILEMAMBA_SCAN'
BACKENDS = ('extension', 'parallel', 'reference')
INSTALL_COMMAND = 'pip install --no-build-isolation ./ext/selective_scan'


class _Extension:
    """The extension, if it is at hand, looked for once.

    Attributes:
        module (ModuleType, optional): The imported package.
        why (str): What stood in the way of the import.
        devices (tuple[str]): Device types that it has kernels for.
        inference (ModuleType, optional): Its operators around the scan,
            which versions before 0.6 have in other places.
        products (ModuleType, optional): The same, where it multiplies
            matrices with this processor's vectors.
    """

    def __init__(self):
        self.module: ModuleType | None = None
        self.why = ''
        self.devices: tuple[str, ...] = ()
        self.inference: ModuleType | None = None
        self.products: ModuleType | None = None
        try:
            self.module = importlib.import_module('selective_scan')
        except ImportError as error:
            self.why = str(error)
            return
        except OSError as error:
            # A shared library built against another torch does not load.
            self.why = f'it does not load: {error}'
            return
        cuda = self.module.built_with_cuda()
        self.devices = ('cpu', 'cuda') if cuda else ('cpu',)
        if Version(self.module.__version__) >= Version('0.6'):
            self.inference = self.module.inference
            # oneDNN has faster code than plain C++ for every processor.
            if self.module.cpu_variant() != 'plain':
                self.products = self.inference


# A global and no cached function, so that compiled graphs can read it.
_extension: _Extension | None = None


def find_extension() -> _Extension:
    """Import the extension at the first call; return what was found."""
    global _extension
    if _extension is None:
        _extension = _Extension()
    return _extension


@functools.cache
def _warn_once(why: str) -> None:
    print_log(
        f'The scan runs in plain PyTorch (backend "parallel"): {why}. For '
        f'the fast one, run `{INSTALL_COMMAND}` in the project folder.',
        logger='current',
        level=logging.WARNING,
    )


def scan_backend() -> str:
    """Return the name of the backend that a new model will use.

    The environment variable ``MMMOBILEMAMBA_SCAN`` chooses by hand; without
    it the extension is taken where it is installed, plain PyTorch otherwise,
    with one warning.

    Returns:
        str: ``'extension'``, ``'parallel'`` or ``'reference'``.

    Raises:
        ValueError: The variable holds another name.
        ImportError: The variable asks for the extension and it is missing.
    """
    wanted = os.environ.get(ENV_NAME, '').strip()
    if wanted and wanted not in BACKENDS:
        raise ValueError(
            f'{ENV_NAME}={wanted!r} is no scan backend; allowed: '
            f'{", ".join(BACKENDS)}, or unset for the fastest at hand.'
        )
    if wanted in ('parallel', 'reference'):
        return wanted
    found = find_extension()
    if found.module is not None:
        return 'extension'
    if wanted:
        raise ImportError(
            f'{ENV_NAME}=extension, but the extension is not at hand '
            f'({found.why}). Install it with `{INSTALL_COMMAND}`.'
        )
    _warn_once(f'the extension is not at hand ({found.why})')
    return 'parallel'


def _implementation(backend: str | None, u: Tensor) -> ModuleType:
    name = scan_backend() if backend is None else backend
    if name == 'reference':
        return reference
    if name == 'parallel':
        return parallel
    if name != 'extension':
        raise ValueError(
            f'backend must be one of {BACKENDS} or None, got {backend!r}.'
        )
    extension = find_extension()
    if u.device.type in extension.devices:
        return extension.module
    if extension.module is None:
        raise ImportError(
            f'backend="extension" is not at hand ({extension.why}). Install '
            f'it with `{INSTALL_COMMAND}`.'
        )
    if not torch.compiler.is_compiling():
        _warn_once(
            f'the extension is built for {" and ".join(extension.devices)}, '
            f'the tensors are on {u.device.type}'
        )
    return parallel


def inference_kernels(backend: str) -> ModuleType | None:
    """Return the operators around the scan, which infer on CPUs in float32.

    Args:
        backend (str): Backend that a layer was made with.

    Returns:
        ModuleType, optional: ``selective_scan.inference``; None for the other
        backends, and where the extension is not at hand or too old.
    """
    return find_extension().inference if backend == 'extension' else None


def product_kernels(backend: str) -> ModuleType | None:
    """Return the operators that multiply, where they serve.

    Args:
        backend (str): Backend that a layer was made with.

    Returns:
        ModuleType, optional: ``selective_scan.inference``, with
        ``dense_conv2d`` and ``feed_forward``; None where
        :func:`inference_kernels` gives None, and on processors for which
        oneDNN has faster code than plain C++.
    """
    return find_extension().products if backend == 'extension' else None


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Run the S6 selective scan with a real, diagonal A.

    Args:
        u (Tensor): Input, (batch, dim, length), floating.
        delta (Tensor): Step sizes before bias and softplus, as ``u``.
        A (Tensor): Continuous decay, (dim, state); negative in use.
        B (Tensor): Input weights, (batch, groups, state, length); ``groups``
            divides ``dim``.
        C (Tensor): Output weights, as ``B``.
        D (Tensor, optional): Skip weights, (dim,). Defaults to None.
        delta_bias (Tensor, optional): Added to ``delta``, (dim,). Defaults to
            None.
        delta_softplus (bool): Apply softplus to the step sizes. Defaults to
            False.
        reverse (bool): Run from the last token to the first. Defaults to
            False.
        backend (str, optional): Backend name; None takes
            :func:`scan_backend`. Defaults to None.

    Returns:
        Tensor: Output of the shape and dtype of ``u``. The state is float32,
        or float64 for a float64 ``u``.

    Source: Mamba (arXiv:2312.00752), algorithm 2.
    """
    return _implementation(backend, u).selective_scan(
        u, delta, A, B, C, D, delta_bias, delta_softplus, reverse
    )


def bidirectional_scan(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    backend: str | None = None,
) -> Tensor:
    """Scan the tokens forwards and backwards and sum both results.

    Args:
        u (Tensor): Input, (batch, inner, length), floating, contiguous or
            channels-last (stride 1 along ``inner``).
        proj (Tensor): Projected rows dt, B, C of each direction,
            (batch, directions, rank + 2 * state, length); direction 0 runs
            forwards, direction 1 backwards.
        dt_proj (Tensor): Lifts dt to the step sizes,
            (directions, inner, rank).
        dt_bias (Tensor): Bias of the step sizes, (directions, inner).
        A (Tensor): Continuous decay, (directions, inner, state); negative
            in use.
        D (Tensor): Skip weights, (directions, inner).
        backend (str, optional): Backend name; None takes
            :func:`scan_backend`. Defaults to None.

    Returns:
        Tensor: Sum of the directions, of the shape and dtype of ``u``.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """
    return _implementation(backend, u).bidirectional_scan(
        u, proj, dt_proj, dt_bias, A, D
    )

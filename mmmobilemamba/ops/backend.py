"""Which implementation of the scan runs. The only importer of the extension.

``extension`` is the compiled ``selective_scan`` package, ``parallel`` plain
PyTorch over all tokens at once, ``reference`` the loop over tokens.
"""

import functools
import importlib
import logging
import os
from types import ModuleType

from mmengine.logging import print_log
from torch import Tensor

from . import parallel, reference

ENV_NAME = 'MMMOBILEMAMBA_SCAN'
BACKENDS = ('extension', 'parallel', 'reference')
INSTALL_COMMAND = 'pip install --no-build-isolation ./ext/selective_scan'


@functools.lru_cache(maxsize=1)
def _load_extension() -> tuple[ModuleType | None, str]:
    """Import the extension; return it, or None and what stood in the way."""
    try:
        return importlib.import_module('selective_scan'), ''
    except ImportError as error:
        return None, str(error)
    except OSError as error:
        # A shared library built against another torch does not load.
        return None, f'it does not load: {error}'


@functools.lru_cache(maxsize=1)
def _warn_once(why: str) -> None:
    print_log(
        'The scan runs in plain PyTorch (backend "parallel"), because the '
        f'extension is not at hand ({why}). For the fast one, run '
        f'`{INSTALL_COMMAND}` in the project folder.',
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
    extension, why = _load_extension()
    if extension is not None:
        return 'extension'
    if wanted:
        raise ImportError(
            f'{ENV_NAME}=extension, but the extension is not at hand '
            f'({why}). Install it with `{INSTALL_COMMAND}`.'
        )
    _warn_once(why)
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
    return _load_extension()[0]


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

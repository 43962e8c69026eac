"""The scan by one of three backends. The only importer of the extension.

``extension`` is the compiled ``selective_scan`` package, ``parallel`` plain
PyTorch over all tokens at once, ``reference`` the loop over tokens.
"""

import functools
import importlib
import logging
import os
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from packaging.version import Version
from torch import Tensor

from . import scan as scan_pytorch
from .export import is_exporting

ENV_NAME = 'MMMOBILEMAMBA_SCAN'
BACKENDS = ('extension', 'parallel', 'reference')
INSTALL_COMMAND = 'pip install --no-build-isolation ./ext/selective_scan'
MIN_VERSION = '0.6'


@dataclass
class Extension:
    """The extension, as far as it is at hand."""

    module: ModuleType | None = None
    # Its operators with packed weights, where it has vector code for this
    # processor; oneDNN has faster code than plain C++ for every one.
    inference: ModuleType | None = None
    devices: tuple[str, ...] = ()  # types that it has kernels for
    why: str = ''  # it is not there


# A global and no cached function, so that compiled graphs can read it.
_extension: Extension | None = None


def find_extension() -> Extension:
    """Import the extension at the first call; return what was found."""
    global _extension
    if _extension is None:
        try:
            module = importlib.import_module('selective_scan')
            if Version(module.__version__) < Version(MIN_VERSION):
                raise ImportError(
                    f'version {module.__version__} is older than {MIN_VERSION}'
                )
        except ImportError as error:
            _extension = Extension(why=str(error))
        except Exception as error:
            # Built against another torch, or broken in another way.
            _extension = Extension(why=f'it does not load: {error}')
        else:
            fast = module.cpu_variant() != 'plain'
            _extension = Extension(
                module,
                module.inference if fast else None,
                ('cpu', 'cuda') if module.built_with_cuda() else ('cpu',),
            )
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

    It is ``'extension'``, ``'parallel'`` or ``'reference'``. The environment
    variable ``MMMOBILEMAMBA_SCAN`` chooses by hand; without it the extension
    is taken where it is installed, plain PyTorch otherwise, with one warning.

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


def extension_for(x: Tensor, backend: str) -> ModuleType | None:
    """Return the extension's package where an operator on ``x`` takes it."""
    if backend != 'extension' or is_exporting():
        return None
    found = find_extension()
    if x.device.type in found.devices:
        return found.module
    if not torch.compiler.is_compiling():
        _warn_once(
            f'the extension has kernels for {" and ".join(found.devices)}, '
            f'the tensors are on {x.device.type}'
        )
    return None


def bidirectional_scan(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    backend: str,
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
        backend (str): As :func:`scan_backend` names it.

    Returns:
        Tensor: Sum of the directions, of the shape and dtype of ``u``. The
        state is float32, or float64 for a float64 ``u``.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """
    module = extension_for(u, backend) or scan_pytorch
    options = {}
    if backend == 'reference':
        options['recurrence'] = scan_pytorch.recurrence_loop
    return module.bidirectional_scan(
        u, proj, dt_proj, dt_bias, A, D, **options
    )


def gated_layer_norm(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    backend: str,
) -> Tensor:
    """Compute ``layer_norm(x) * silu(z)``, the norm over channels.

    Args:
        x (Tensor): Tokens (batch, channels, length), floating, contiguous or
            channels-last; the result has its shape and dtype.
        z (Tensor): Gates as ``x``; a slice of channels will do.
        weight (Tensor): Weight of the norm, (channels,).
        bias (Tensor): Bias of the norm, (channels,).
        eps (float): Added to the variance.
        backend (str): As :func:`scan_backend` names it.
    """
    extension = extension_for(x, backend)
    if extension is not None:
        return extension.gated_layer_norm(x, z, weight, bias, eps)
    dtype = scan_pytorch.state_dtype(x.dtype)
    weight, bias = weight.to(dtype), bias.to(dtype)
    y = x.transpose(1, 2).to(dtype)
    y = F.layer_norm(y, weight.shape, weight, bias, eps).transpose(1, 2)
    return (y * F.silu(z.to(dtype))).to(x.dtype)

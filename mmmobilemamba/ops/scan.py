"""What runs the operators: ``extension``, the compiled ``selective_scan``,
``parallel``, plain PyTorch, or ``reference``, a loop over tokens."""

import functools
import logging
import os
from dataclasses import dataclass
from types import ModuleType

import torch
from mmengine.logging import print_log
from packaging.version import Version
from torch import Tensor

ENV_NAME = 'MMMOBILEMAMBA_SCAN'
BACKENDS = ('extension', 'parallel', 'reference')
INSTALL_COMMAND = 'pip install --no-build-isolation ./ext/selective_scan'


@dataclass
class Extension:
    """The extension, as far as it is at hand."""

    module: ModuleType | None = None
    # Operators with packed weights, where they are faster than oneDNN's.
    inference: ModuleType | None = None
    devices: tuple[str, ...] = ()  # types that it has kernels for
    why: str = ''  # it is not there


# A global and no cached function, so that tracers can read it.
_extension: Extension | None = None


def find_extension() -> Extension:
    """Import the extension at the first call; return what was found."""
    global _extension
    if _extension is None:
        try:
            import selective_scan as module

            if Version(module.__version__) < Version('0.6'):
                raise ImportError(f'version {module.__version__} is too old')
            fast = module.cpu_variant() != 'plain' and module.inference
            devices = ('cpu', 'cuda') if module.built_with_cuda() else ('cpu',)
            _extension = Extension(module, fast or None, devices)
        except Exception as error:  # as where it is built for another torch
            _extension = Extension(why=f'no scan extension ({error})')
    return _extension


@functools.cache
def _warn_once(why: str) -> None:
    text = f'Scans run in plain PyTorch: {why}. Run `{INSTALL_COMMAND}`.'
    print_log(text, 'current', logging.WARNING)


def scan_backend() -> str:
    """Return the backend that a new model will use.

    ``MMMOBILEMAMBA_SCAN`` in the environment names it; without, it is the
    extension or, with one warning, ``parallel``.

    Raises:
        ValueError: The variable holds another name.
        ImportError: It asks for the extension, which is missing.
    """
    wanted = os.environ.get(ENV_NAME, '').strip()
    if wanted not in ('', *BACKENDS):
        raise ValueError(f'{ENV_NAME} must be in {BACKENDS}, got {wanted!r}.')
    if wanted in ('parallel', 'reference'):
        return wanted
    found = find_extension()
    if found.module is not None:
        return 'extension'
    if wanted:
        raise ImportError(f'{found.why}; run `{INSTALL_COMMAND}`.')
    _warn_once(found.why)
    return 'parallel'


def extension_for(x: Tensor, backend: str) -> ModuleType | None:
    """Return the extension's package where an operator on ``x`` takes it."""
    if backend != 'extension' or is_exporting():
        return None
    found = find_extension()
    if x.device.type in found.devices:
        return found.module
    if not torch.compiler.is_compiling():
        _warn_once(f'the extension has no kernels for {x.device.type}')
    return None


def is_exporting() -> bool:
    """Return whether a graph of PyTorch's own operators is being recorded."""
    if torch.compiler.is_compiling():
        # torch.compiler.is_exporting() is True in compiled code, too.
        return getattr(torch.compiler, '_is_exporting_flag', False)
    return torch.jit.is_tracing()

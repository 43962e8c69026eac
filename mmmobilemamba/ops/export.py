"""Whether layers are being traced for another runtime, and for which sizes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# A global and no context variable, so that tracers can read it.
_free_size = False


@contextmanager
def export_form(free_size: bool = False) -> Iterator[None]:
    """Say whether a graph traced within has to hold for maps of every size."""
    global _free_size
    before, _free_size = _free_size, free_size
    try:
        yield
    finally:
        _free_size = before


def size_is_free() -> bool:
    """Return whether what is traced has to hold for maps of every size."""
    return _free_size


def is_exporting() -> bool:
    """Return whether a graph of PyTorch's own operators is being recorded."""
    if torch.compiler.is_compiling():
        # torch.compiler.is_exporting() is True in compiled code, too.
        return getattr(torch.compiler, '_is_exporting_flag', False)
    return torch.jit.is_tracing()

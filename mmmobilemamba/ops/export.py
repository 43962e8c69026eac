"""Whether layers are being traced for another runtime, and for which sizes."""

from collections.abc import Iterator
from contextlib import contextmanager

# Globals and no context variables, so that tracers can read them.
_exporting = False
_free_size = False


@contextmanager
def export_form(free_size: bool = False) -> Iterator[None]:
    """Let layers compute by PyTorch's own operators, as a graph needs them.

    Args:
        free_size (bool): Take forms that hold for maps of every size where
            they are traced once. Defaults to False, the traced size alone.
    """
    global _exporting, _free_size
    before = _exporting, _free_size
    _exporting, _free_size = True, free_size
    try:
        yield
    finally:
        _exporting, _free_size = before


def is_exporting() -> bool:
    """Return whether layers run within :func:`export_form`."""
    return _exporting


def size_is_free() -> bool:
    """Return whether what is traced has to hold for maps of every size."""
    return _free_size

"""Let ``torch.load(weights_only=True)`` read what mmengine's Runner writes.

Besides tensors such a file holds log histories: ``HistoryBuffer`` objects made
of numpy arrays. torch >= 2.6 refuses them, so that testing and resuming fail.
Exactly those pieces become loadable.

Names in a file never reach numpy's own constructors: ``numpy.ndarray`` with an
object dtype takes raw bytes for pointers, and a copied dtype lets a file
overwrite its flags. Only plain arrays and scalars of numeric types are made.
"""

import codecs
import functools
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint
from mmengine.utils import digit_version

_STATISTICS = ('min', 'max', 'mean', 'current')
_NUMERIC = f'?{np.typecodes["AllInteger"]}{np.typecodes["AllFloat"]}'
# Where numpy keeps these two differs between its versions 1 and 2.
_rebuild_array = np.zeros(1).__reduce__()[0]
_rebuild_scalar = np.float64(0).__reduce__()[0]


class _ArrayName:
    """Stand for ``numpy.ndarray`` in a file, where it is only an argument."""


def _getattr(owner: type, name: str) -> Callable:
    """Return a statistic of HistoryBuffer, the one use of getattr."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(
            f'A checkpoint may not take {name!r} of {owner!r} by getattr.'
        )
    return getattr(HistoryBuffer, name)


def _dtype(code: str, *_flags: bool) -> np.dtype:
    """Return numpy's own numeric dtype, which ignores what a file sets."""
    if np.dtype(code).char not in _NUMERIC:
        raise ValueError(f'A checkpoint may not hold numpy data of {code!r}.')
    return np.dtype(code)


def _array(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """Return the empty array that the file then fills."""
    if kind not in (_ArrayName, np.ndarray) or shape != (0,):
        raise ValueError(f'A checkpoint may not hold arrays of {kind!r}.')
    return _rebuild_array(np.ndarray, (0,), b'b')


def _named(path: str, target: Callable) -> Callable:
    """Return a function of that name that calls ``target``."""
    alias = functools.partial(target)
    alias.__module__, _, alias.__qualname__ = path.rpartition('.')
    alias.__name__ = alias.__qualname__
    return alias


@functools.cache
def _allowed() -> list:
    # torch wants the types of the objects listed that a file sets the state
    # of, numpy arrays and dtypes among them.
    allowed = [HistoryBuffer, *{type(np.dtype(c)) for c in _NUMERIC}]
    if digit_version(torch.__version__) >= digit_version('2.6.0'):
        # A name in a file ends at a line break, so none calls ndarray.
        allowed.append((np.ndarray, 'numpy.ndarray\n'))
        allowed.append((_ArrayName, 'numpy.ndarray'))
    else:  # which takes the name from the listed object itself
        allowed += [np.ndarray, codecs.encode]
    allowed.append(_named('numpy.dtype', _dtype))
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.append(_named(f'{module}._reconstruct', _array))
        allowed.append(_named(f'{module}.scalar', _rebuild_scalar))
    # Files carry the name of Python 2, which newer torch versions translate.
    for module in ('builtins', '__builtin__'):
        allowed.append(_named(f'{module}.getattr', _getattr))
    return allowed


def allow_mmengine_checkpoints() -> None:
    """Allow-list what mmengine's checkpoints hold, for the whole process.

    torch 2.4 and 2.5 load without restriction unless ``weights_only=True`` is
    passed, as our tools do.
    """
    # The maintained fork lets a file call getattr and numpy's constructors,
    # reads what torch refuses without restriction, and takes what it listed
    # for that time off torch's list.
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load
    torch.serialization.add_safe_globals(_allowed())

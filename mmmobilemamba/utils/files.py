"""Writing files whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` at the end.

    Nobody sees half a file: where the block fails, ``path`` stays as it was.

    Args:
        path (str or PathLike): File to write; its folder is made.

    Yields:
        Path: A file of the same name in a temporary folder beside it, which
        the block has to write.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, so that the file itself has the name, which may tell its
    # format, and the usual permissions.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder:
        draft = Path(folder, path.name)
        yield draft
        with open(draft, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(draft, path)

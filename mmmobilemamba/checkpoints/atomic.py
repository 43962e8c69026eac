"""Writing files whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Begins the name of a folder that holds a file until it is whole.
_DRAFT = '.draft_'


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` at the end.

    Where the block fails, ``path`` stays as it was, and neither a killed
    process nor a power cut leaves half of the new file under that name.

    Args:
        path (str or PathLike): File to write; its folder is made.

    Yields:
        Path: A file of that name in a temporary folder.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, so that the file itself has the name, which may tell its
    # format, and the usual permissions.
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=_DRAFT, ignore_cleanup_errors=True
    ) as folder:
        draft = Path(folder, path.name)
        yield draft
        with open(draft, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # the names in the folder
    finally:
        os.close(handle)


def remove_drafts(folder: str | os.PathLike) -> list[str]:
    """Remove what a killed process was writing; return the files' names."""
    names = []
    for draft in Path(folder).glob(f'{_DRAFT}*'):
        names += [file.name for file in draft.iterdir()]
        shutil.rmtree(draft)
    return names

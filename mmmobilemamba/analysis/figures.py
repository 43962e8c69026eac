"""Figures and tables of this package's tools, drawn without a display."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from ..checkpoints.atomic import atomic_write


@contextmanager
def figure_file(
    path: str | os.PathLike, size: tuple[float, float]
) -> Iterator[Figure]:
    """Give a figure of so many inches, which is written to a file at the end;
    raise ValueError for a suffix that matplotlib does not write."""
    # Not through pyplot, which keeps figures and asks for a display.
    figure = Figure(figsize=size, layout='constrained')
    if not Path(path).suffix or os.path.isdir(path):
        raise ValueError(f'{path} is a folder, or has no suffix of an image.')
    yield figure
    with atomic_write(path) as draft:
        figure.savefig(draft, dpi=120)


def markdown_rows(header: Sequence, rows: Sequence[Sequence]) -> str:
    """Lay rows out as a table of Markdown, all but the first column right."""
    rule = ['---'] + ['---:'] * (len(header) - 1)
    return '\n'.join(
        f'| {" | ".join(map(str, row))} |' for row in (header, rule, *rows)
    )

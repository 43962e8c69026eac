"""Images of a data set with one folder per class, or with a list."""

import os
import os.path as osp
import random
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# What MMPretrain's own data sets look for.
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif')
_VAL_NAMES = ('val', 'valid', 'validation', 'test')
# What LMDB takes as a key, in bytes.
_MAX_KEY = 511

Samples = list[tuple[str, int]]


@dataclass(frozen=True)
class ImageSplit:
    """Paths below a root and class numbers of two splits."""

    root: Path
    classes: tuple[str, ...]
    train: Samples
    val: Samples


def images_by_class(root: str | os.PathLike) -> dict[str, list[str]]:
    """List the images of a folder with one folder per class.

    Order and labels are those of MMPretrain's ``CustomDataset``.
    """
    if not osp.isdir(root):
        raise FileNotFoundError(f'Folder {root} does not exist.')
    found = {}
    for name in sorted(e.name for e in os.scandir(root) if e.is_dir()):
        found[name] = sorted(
            f'{osp.relpath(folder, root).replace(os.sep, "/")}/{file}'
            for folder, _, files in os.walk(osp.join(root, name))
            for file in files
            if file.lower().endswith(IMAGE_SUFFIXES)
        )
    if not any(found.values()):
        raise ValueError(
            f'Folder {root} has no folder per class with images '
            f'({", ".join(IMAGE_SUFFIXES)}).'
        )
    return found


def list_folders(root: str | os.PathLike) -> Samples:
    """List the images of :func:`images_by_class` with their labels."""
    return _labelled(images_by_class(root))


def _labelled(classes: dict[str, list[str]], start: str = '') -> Samples:
    return [
        (f'{start}{path}', number)
        for number, paths in enumerate(classes.values())
        for path in paths
    ]


def read_list(path: str) -> Samples:
    """Read a list such as ``meta/train.txt``: a path and a label per line.

    Args:
        path (str): Text file.

    Returns:
        list[tuple[str, int]]: Relative path and label of each image.

    Raises:
        ValueError: A line is no path and label, a path leads out of the
            folder, or occurs twice.
    """
    samples, seen = [], set()
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, start=1):
            name, _, label = line.strip().rpartition(' ')
            if not line.strip():
                continue
            if not name or not label.isdigit() or name in seen:
                wrong = 'lists again' if name in seen else 'is no path, label'
                raise ValueError(f'{path}:{number} {wrong}: {line.strip()!r}.')
            check_key(name)
            seen.add(name)
            samples.append((name, int(label)))
    if not samples:
        raise ValueError(f'{path} lists no images.')
    return samples


def check_key(name: str) -> None:
    """Raise a ValueError unless a path stays below its folder, as a key."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or '..' in path.parts
        or '\\' in name
        or not name.isascii()
        or len(name) > _MAX_KEY
        or name != str(path)
    ):
        raise ValueError(
            f'{name!r} cannot be a key: it must be a plain relative path of '
            f'at most {_MAX_KEY} ASCII characters, below the folder.'
        )


def split_images(
    root: str | Path, val_share: float = 0.2, seed: int = 0
) -> ImageSplit:
    """Find the images of a folder and who trains on which.

    Args:
        root (str or Path): Folder with ``train`` and ``val`` (or ``test``),
            each holding a subfolder per class, or with such subfolders
            directly.
        val_share (float): Share of each class that is held out where there
            are no two folders. Defaults to 0.2.
        seed (int): Seed of that choice. Defaults to 0.

    Returns:
        ImageSplit: Both lists, by class and name.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has fewer than two classes, a class without enough
            images, or classes in one split only.
    """
    # Without the dots of a relative path, whatever folder it was given in.
    root = Path(os.path.abspath(root))
    if not 0 < val_share < 1:
        raise ValueError(
            f'val_share must be between 0 and 1, got {val_share}.'
        )
    if (root / 'train').is_dir():
        held_out = next((n for n in _VAL_NAMES if (root / n).is_dir()), None)
        if held_out is None:
            raise ValueError(
                f'{root} has a folder train and none to hold out.'
            )
        train = images_by_class(root / 'train')
        val = images_by_class(root / held_out)
        starts = 'train/', f'{held_out}/'
        if train.keys() != val.keys():
            raise ValueError(
                f'train and {held_out} of {root} have different classes: '
                f'{", ".join(sorted(train.keys() ^ val.keys()))}.'
            )
    else:
        train, val, starts = images_by_class(root), {}, ('', '')
        for name, paths in train.items():
            if len(paths) < 2:
                raise ValueError(
                    f'Class {name} needs two images, has {len(paths)}.'
                )
            count = min(max(round(val_share * len(paths)), 1), len(paths) - 1)
            chosen = random.Random(f'{seed}/{name}').sample(paths, count)
            val[name] = sorted(chosen)
            train[name] = [path for path in paths if path not in set(chosen)]
    bare = [name for name in train if not (train[name] and val[name])]
    if len(train) < 2 or bare:
        raise ValueError(
            f'{root} must have two or more classes with images in each, got '
            f'{len(train)}; without: {", ".join(bare) or "none"}.'
        )
    return ImageSplit(
        root,
        tuple(train),
        _labelled(train, starts[0]),
        _labelled(val, starts[1]),
    )

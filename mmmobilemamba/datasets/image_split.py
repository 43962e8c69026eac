"""Training and validation lists of a folder with one subfolder per class."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

from ..apis.inference import IMAGE_SUFFIXES

_VAL_NAMES = ('val', 'valid', 'validation', 'test')


@dataclass(frozen=True)
class ImageSplit:
    """Images of two splits, as paths below a root and class numbers.

    Args:
        root (Path): Folder that the paths start at.
        classes (tuple[str]): Names of the classes.
        train (tuple[tuple[str, int]]): Path and class of training images.
        val (tuple[tuple[str, int]]): Path and class of held-out images.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    val: tuple[tuple[str, int], ...]


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
    if not root.is_dir():
        raise FileNotFoundError(f'Data folder {root} does not exist.')
    if not 0 < val_share < 1:
        raise ValueError(
            f'val_share must be between 0 and 1, got {val_share}.'
        )
    if (root / 'train').is_dir():
        held_out = next((n for n in _VAL_NAMES if (root / n).is_dir()), None)
        if held_out is None:
            raise ValueError(
                f'{root} has a folder train but none of '
                f'{", ".join(_VAL_NAMES)}.'
            )
        train, val = _classes(root / 'train'), _classes(root / held_out)
        if train.keys() != val.keys():
            raise ValueError(
                f'train and {held_out} of {root} have different classes: '
                f'{", ".join(sorted(train.keys() ^ val.keys()))}.'
            )
    else:
        train, val = _divide(_classes(root), val_share, seed)
    classes = tuple(train)
    if len(classes) < 2:
        raise ValueError(
            f'{root} must hold a subfolder of images for each of two or more '
            f'classes, got {len(classes)}.'
        )
    return ImageSplit(
        root,
        classes,
        _listed(train, root, classes),
        _listed(val, root, classes),
    )


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the images of every class, both sorted by name."""
    found = {}
    for sub in sorted(p for p in folder.iterdir() if p.is_dir()):
        found[sub.name] = sorted(
            path
            for path in sub.rglob('*')
            if path.suffix.lower() in IMAGE_SUFFIXES
        )
        if not found[sub.name]:
            raise ValueError(
                f'Class folder {sub} holds no images '
                f'({", ".join(IMAGE_SUFFIXES)}).'
            )
    return found


def _divide(
    images: dict[str, list[Path]], share: float, seed: int
) -> tuple[dict, dict]:
    train, val = {}, {}
    for name, paths in images.items():
        if len(paths) < 2:
            raise ValueError(
                f'Class {name} has one image, and needs one to train on and '
                'one to hold out.'
            )
        count = min(max(round(share * len(paths)), 1), len(paths) - 1)
        chosen = set(random.Random(f'{seed}/{name}').sample(paths, count))
        train[name] = [path for path in paths if path not in chosen]
        val[name] = [path for path in paths if path in chosen]
    return train, val


def _listed(
    images: dict[str, list[Path]], root: Path, classes: tuple[str, ...]
) -> tuple[tuple[str, int], ...]:
    return tuple(
        (path.relative_to(root).as_posix(), classes.index(name))
        for name, paths in images.items()
        for path in paths
    )

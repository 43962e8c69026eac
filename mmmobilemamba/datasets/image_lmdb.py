"""Image folders packed into one file, for MMPretrain's own data sets.

A million small files are slow to list, to copy and to read from network
drives. The files go byte for byte into an LMDB, by their relative path, from
where mmengine's ``LmdbBackend`` reads them in the pipeline; a list of paths
and labels beside it takes the place of the folders.
"""

import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

# What MMPretrain's own data sets look for.
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif')
_COMMIT_EVERY = 1000
# An upper bound: the file grows as it is filled.
_MAP_SIZE = 1 << 40

Samples = list[tuple[str, int]]


def list_folders(root: str | os.PathLike) -> Samples:
    """List the images of a folder with one folder per class.

    Order and labels are those of MMPretrain's ``CustomDataset``.

    Args:
        root (str or PathLike): Folder.

    Returns:
        list[tuple[str, int]]: Relative path and label of each image.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no folder with images.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'Folder {root} does not exist.')
    samples = [
        (f'{osp.relpath(folder, root).replace(os.sep, "/")}/{file}', label)
        for label, name in enumerate(
            sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        )
        for folder, _, files in os.walk(root / name)
        for file in files
        if file.lower().endswith(IMAGE_SUFFIXES)
    ]
    if not samples:
        raise ValueError(
            f'Folder {root} has no folder per class with images '
            f'({", ".join(IMAGE_SUFFIXES)}).'
        )
    return sorted(samples, key=lambda sample: (sample[1], sample[0]))


def read_list(path: str) -> Samples:
    """Read a list such as ``meta/train.txt``: a path and a label per line.

    Args:
        path (str): Text file.

    Returns:
        list[tuple[str, int]]: Relative path and label of each image.

    Raises:
        ValueError: A line is no path and label, or lists a path again.
    """
    samples = {}
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(map(str.strip, file), start=1):
            name, _, label = line.rpartition(' ')
            if line and not (name and label.isdigit()) or name in samples:
                wrong = (
                    'lists again' if name in samples else 'is no path, label'
                )
                raise ValueError(f'{path}:{number} {wrong}: {line!r}.')
            if line:
                samples[name] = int(label)
    if not samples:
        raise ValueError(f'{path} lists no images.')
    return list(samples.items())


def check_images(
    root: str, samples: Samples, target: str, overwrite: bool
) -> None:
    """Raise an OSError or ValueError before hours of packing.

    That is where the LMDB is there already, an image is missing, or a path
    cannot be a key.
    """
    if osp.exists(target) and not overwrite:
        raise FileExistsError(
            f'{target} exists; choose another folder or pass --overwrite.'
        )
    for name, _ in samples:
        path = PurePosixPath(name)
        plain = name == str(path) and name.isascii() and '\\' not in name
        if path.is_absolute() or '..' in path.parts or not plain:
            raise ValueError(
                f'{name!r} cannot be a key: it must be a plain relative path '
                'in ASCII characters, below the folder.'
            )
        os.stat(osp.join(root, name))


def write_image_lmdb(
    root: str,
    samples: Samples,
    out_dir: str,
    split: str,
    overwrite: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Pack images into ``<split>.lmdb``, with ``meta/<split>.txt`` beside it.

    Both are put in place when they are complete.

    Args:
        root (str): Folder that the paths start at.
        samples (list[tuple[str, int]]): Relative path and label of each.
        out_dir (str): Folder that takes the two; made where missing.
        split (str): Name of the two.
        overwrite (bool): Replace what is there. Defaults to False.
        progress (Callable): Wraps the iteration over the samples. Defaults
            to ``iter``.

    Raises:
        ImportError: The package lmdb is missing.
        OSError: As :func:`check_images`.
        ValueError: The same.
    """
    try:
        import lmdb
    except ImportError as error:
        raise ImportError(
            'Writing an LMDB needs the package lmdb: pip install lmdb.'
        ) from error
    target = osp.join(out_dir, f'{split}.lmdb')
    check_images(root, samples, target, overwrite)
    os.makedirs(osp.join(out_dir, 'meta'), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=f'.{split}-') as temp:
        building = osp.join(temp, 'lmdb')
        with lmdb.open(building, map_size=_MAP_SIZE, meminit=False) as env:
            transaction = env.begin(write=True)
            for count, (name, _) in enumerate(progress(samples), start=1):
                data = Path(root, name).read_bytes()
                transaction.put(name.encode('ascii'), data)
                if count % _COMMIT_EVERY == 0:
                    transaction.commit()
                    transaction = env.begin(write=True)
            transaction.commit()
            env.sync(True)
        os.unlink(osp.join(building, 'lock.mdb'))
        listed = Path(temp, 'samples.txt')
        lines = [f'{name} {label}\n' for name, label in samples]
        listed.write_text(''.join(lines), encoding='utf-8')
        if osp.exists(target):
            shutil.rmtree(target)
        os.replace(listed, osp.join(out_dir, 'meta', f'{split}.txt'))
        os.replace(building, target)

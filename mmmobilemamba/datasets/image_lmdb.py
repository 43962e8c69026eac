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
from pathlib import PurePosixPath

IMAGE_SUFFIXES = (
    '.bmp',
    '.jpeg',
    '.jpg',
    '.pgm',
    '.png',
    '.ppm',
    '.tif',
)
# What LMDB takes as a key, in bytes.
_MAX_KEY = 511
_COMMIT_EVERY = 1000
# Pages of 4 KiB that an entry may leave partly empty, and the tree.
_OVERHEAD = 3 * 4096


def list_folders(root: str) -> list[tuple[str, int]]:
    """List the images of a folder with one folder per class.

    Args:
        root (str): Folder; its folders, by name, are the classes.

    Returns:
        list[tuple[str, int]]: Relative path and label of each image, in the
        order that mmpretrain's ``CustomDataset`` has.

    Raises:
        FileNotFoundError: There is no such folder, or it has no images.
    """
    if not osp.isdir(root):
        raise FileNotFoundError(f'Folder {root} does not exist.')
    classes = sorted(e.name for e in os.scandir(root) if e.is_dir())
    samples = []
    for label, name in enumerate(classes):
        files = []
        for folder, _, names in os.walk(osp.join(root, name)):
            inner = osp.relpath(folder, root).replace(os.sep, '/')
            files += [
                f'{inner}/{file}'
                for file in names
                if file.lower().endswith(IMAGE_SUFFIXES)
            ]
        samples += [(file, label) for file in sorted(files)]
    if not samples:
        raise FileNotFoundError(
            f'Folder {root} has no folders with images '
            f'({", ".join(IMAGE_SUFFIXES)}).'
        )
    return samples


def read_list(path: str) -> list[tuple[str, int]]:
    """Read a list such as ``meta/train.txt``: a path and a label per line.

    Args:
        path (str): Text file.

    Returns:
        list[tuple[str, int]]: Relative path and label of each image.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no path and label, a path leads out of the
            folder, or occurs twice.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'List {path} does not exist.')
    samples, seen = [], set()
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            name, _, label = line.strip().rpartition(' ')
            if not name or not label.isdigit():
                raise ValueError(
                    f'{path}:{number} is no path and label: {line.strip()!r}.'
                )
            if name in seen:
                raise ValueError(f'{path}:{number} lists {name} again.')
            seen.add(name)
            samples.append((name, int(label)))
    if not samples:
        raise ValueError(f'{path} lists no images.')
    for name, _ in samples:
        _check_key(name)
    return samples


def write_image_lmdb(
    root: str,
    samples: list[tuple[str, int]],
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
        FileExistsError: The LMDB is there and ``overwrite`` is False.
        FileNotFoundError: An image is missing.
        ValueError: A path cannot be a key.
    """
    try:
        import lmdb
    except ImportError as error:
        raise ImportError(
            'Writing an LMDB needs the package lmdb: pip install lmdb.'
        ) from error

    target = osp.join(out_dir, f'{split}.lmdb')
    if osp.exists(target) and not overwrite:
        raise FileExistsError(
            f'{target} exists; choose another folder or pass --overwrite.'
        )
    size = 0
    for name, _ in samples:
        _check_key(name)
        size += osp.getsize(osp.join(root, name)) + _OVERHEAD
    os.makedirs(osp.join(out_dir, 'meta'), exist_ok=True)
    building = tempfile.mkdtemp(dir=out_dir, prefix=f'.{split}-')
    try:
        # A map is an upper bound: the file grows as it is filled.
        with lmdb.open(
            building, map_size=2 * size + (1 << 26), meminit=False
        ) as env:
            _fill(env, root, samples, progress)
            env.sync(True)
        os.unlink(osp.join(building, 'lock.mdb'))
        os.chmod(building, 0o755)
        listed = osp.join(building, 'samples.txt')
        with open(listed, 'w', encoding='utf-8') as file:
            file.writelines(f'{name} {label}\n' for name, label in samples)
        if osp.exists(target):
            shutil.rmtree(target)
        os.replace(listed, osp.join(out_dir, 'meta', f'{split}.txt'))
        os.replace(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(env, root, samples, progress) -> None:
    transaction = env.begin(write=True)
    for count, (name, _) in enumerate(progress(samples), start=1):
        with open(osp.join(root, name), 'rb') as file:
            transaction.put(name.encode('ascii'), file.read())
        if count % _COMMIT_EVERY == 0:
            transaction.commit()
            transaction = env.begin(write=True)
    transaction.commit()


def _check_key(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or '\\' in name:
        raise ValueError(f'{name!r} leads out of the folder of the images.')
    if not name.isascii() or len(name) > _MAX_KEY or name != str(path):
        raise ValueError(
            f'{name!r} cannot be a key: it must be a plain relative path of '
            f'at most {_MAX_KEY} ASCII characters.'
        )

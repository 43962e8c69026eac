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

from .image_folders import Samples, check_key, list_folders  # noqa: F401

_COMMIT_EVERY = 1000
# Pages of 4 KiB that an entry may leave partly empty, and the tree.
_OVERHEAD = 3 * 4096


def check_images(
    root: str, samples: Samples, target: str, overwrite: bool
) -> int:
    """Return the bytes that an LMDB of images may take.

    Raises an OSError or ValueError before hours of packing: where it is
    there already, an image is missing, or a path cannot be a key.
    """
    if osp.exists(target) and not overwrite:
        raise FileExistsError(
            f'{target} exists; choose another folder or pass --overwrite.'
        )
    for name, _ in samples:
        check_key(name)
    return sum(
        osp.getsize(osp.join(root, name)) + _OVERHEAD for name, _ in samples
    )


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
    """
    try:
        import lmdb
    except ImportError as error:
        raise ImportError(
            'Writing an LMDB needs the package lmdb: pip install lmdb.'
        ) from error
    target = osp.join(out_dir, f'{split}.lmdb')
    size = check_images(root, samples, target, overwrite)
    os.makedirs(osp.join(out_dir, 'meta'), exist_ok=True)
    building = tempfile.mkdtemp(dir=out_dir, prefix=f'.{split}-')
    try:
        # A map is an upper bound: the file grows as it is filled.
        with lmdb.open(
            building, map_size=2 * size + (1 << 26), meminit=False
        ) as env:
            transaction = env.begin(write=True)
            for count, (name, _) in enumerate(progress(samples), start=1):
                with open(osp.join(root, name), 'rb') as file:
                    transaction.put(name.encode('ascii'), file.read())
                if count % _COMMIT_EVERY == 0:
                    transaction.commit()
                    transaction = env.begin(write=True)
            transaction.commit()
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

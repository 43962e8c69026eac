"""Image folders packed into one file, for MMPretrain's own data sets."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path


def pack_images(
    src: str | os.PathLike,
    out_dir: str | os.PathLike,
    splits: Sequence[str] = ('train', 'val'),
    progress: Callable[[Iterable, str], Iterable] = lambda items, _: items,
) -> Iterator[tuple[Path, int, int]]:
    """Pack images byte for byte, for mmengine's ``LmdbBackend``.

    ``<split>.lmdb``, images by relative path, and ``meta/<split>.txt``, paths
    and labels, are put in place when they are complete.

    Args:
        src (str or PathLike): Folder with ``meta/<split>.txt``, a path and a
            label per line, or else with a folder per class in ``<split>``.
        out_dir (str or PathLike): Folder that takes both; made where missing.
        splits (Sequence[str]): Folders of images in ``src``.
        progress (Callable): Wraps the samples; takes them and the split.

    Yields:
        tuple[Path, int, int]: LMDB, number of its images and of classes.

    Raises:
        OSError: An image is missing, or an LMDB is there.
        ValueError: A list has other lines, or a path that is no key.
    """
    import lmdb  # neither comes with what else imports this package
    from mmpretrain.datasets import CustomDataset

    found = {}
    for split in splits:
        root, listed = Path(src, split), Path(src, 'meta', f'{split}.txt')
        dataset = CustomDataset(
            data_prefix=str(root),
            ann_file=str(listed) if listed.is_file() else '',
            lazy_init=True,
        )
        try:
            samples = dataset.load_data_list()
        except RuntimeError as error:  # no folder has images
            raise ValueError(str(error)) from error
        found[split] = {
            Path(x['img_path']).relative_to(root).as_posix(): x['gt_label']
            for x in samples
        }
        for name in found[split]:
            os.stat(root / name)
            if not name.isascii():
                raise ValueError(f'{name} must be ASCII, to be a key.')
        if Path(out_dir, f'{split}.lmdb').exists():
            raise FileExistsError(f'{out_dir} holds {split}.lmdb; remove it.')
    meta = Path(out_dir, 'meta')
    meta.mkdir(parents=True, exist_ok=True)
    for split, samples in found.items():
        lines = [f'{name} {label}\n' for name, label in samples.items()]
        target = Path(out_dir, f'{split}.lmdb')
        with tempfile.TemporaryDirectory(dir=out_dir) as temp:
            # The size is an upper bound; what a crash leaves needs no sync.
            options = dict(map_size=1 << 40, lock=False, sync=False)
            with lmdb.open(f'{temp}/lmdb', **options) as env:
                for name in progress(samples, split):
                    with env.begin(write=True) as transaction:
                        data = Path(src, split, name).read_bytes()
                        transaction.put(name.encode(), data)
                env.sync(True)
            Path(temp, 'list').write_text(''.join(lines))
            os.replace(f'{temp}/list', meta / f'{split}.txt')
            os.replace(f'{temp}/lmdb', target)
        yield target, len(samples), len(set(samples.values()))

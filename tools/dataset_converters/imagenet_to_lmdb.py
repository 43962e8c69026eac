"""Pack an ImageNet-like folder into one LMDB per split.

Reads what MMPretrain's ImageNet reads: SRC/meta/<split>.txt with a path and a
label per line where there is one, else a folder per class in SRC/<split>.
Writes OUT/<split>.lmdb, with the image files byte for byte, and
OUT/meta/<split>.txt. mobilemamba-b1_8xb128-300e-lmdb_in1k-256px.py shows how a
config reads them.
"""

import argparse
import os.path as osp
from collections.abc import Sequence

from rich.progress import track

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.datasets.image_lmdb import (
    check_images,
    list_folders,
    read_list,
    write_image_lmdb,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('src', help='folder of the data set')
    add('out_dir', help='folder that takes the LMDBs')
    text = 'folders of src to pack; default: train val'
    add('--splits', nargs='+', default=['train', 'val'], help=text)
    add('--overwrite', action='store_true', help='replace what is there')
    args = parser.parse_args(argv)
    with user_errors(parser):
        found = {}
        for split in args.splits:
            root = osp.join(args.src, split)
            listed = osp.join(args.src, 'meta', f'{split}.txt')
            found[split] = (
                read_list(listed) if osp.isfile(listed) else list_folders(root)
            )
            target = osp.join(args.out_dir, f'{split}.lmdb')
            check_images(root, found[split], target, args.overwrite)
        # All is there: packing takes hours.
        for split, samples in found.items():
            write_image_lmdb(
                osp.join(args.src, split),
                samples,
                args.out_dir,
                split,
                overwrite=args.overwrite,
                progress=lambda items, split=split: track(items, split),
            )
            print(
                f'{osp.join(args.out_dir, split)}.lmdb: {len(samples)} images '
                f'of {len({label for _, label in samples})} classes'
            )


if __name__ == '__main__':
    main()

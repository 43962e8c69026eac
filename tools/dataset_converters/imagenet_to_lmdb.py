"""Pack an ImageNet-like folder into one LMDB per split.

Reads what MMPretrain's ImageNet reads: SRC/meta/<split>.txt with a path and a
label per line where there is one, else a folder per class in SRC/<split>.
Writes OUT/<split>.lmdb, with the image files byte for byte, and
OUT/meta/<split>.txt. mobilemamba-b1_8xb128-300e-lmdb_in1k-256px.py shows how a
config reads them.
"""

import argparse
from collections.abc import Sequence

from rich.progress import track

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.datasets.image_lmdb import pack_images


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('src', help='folder of the data set')
    add('out_dir', help='folder that takes the LMDBs')
    text = 'folders of src to pack; default: train val'
    add('--splits', nargs='+', default=['train', 'val'], help=text)
    args = parser.parse_args(argv)
    with user_errors(parser):
        for path, images, classes in pack_images(**vars(args), progress=track):
            print(f'{path}: {images} images of {classes} classes')


if __name__ == '__main__':
    main()

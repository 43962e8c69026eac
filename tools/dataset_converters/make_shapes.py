"""Write the embedded data set of geometric shapes."""

import argparse
import sys

from mmmobilemamba.datasets import make_shapes


def parse_args():
    parser = argparse.ArgumentParser(
        description='Write scenes of geometric shapes with COCO json and '
        'ADE-style label maps'
    )
    parser.add_argument('out_dir', help='the folder to write')
    parser.add_argument(
        '--num-train', type=int, default=800, help='training scenes'
    )
    parser.add_argument(
        '--num-val', type=int, default=100, help='held-out scenes'
    )
    parser.add_argument(
        '--size', type=int, default=160, help='side of the images in pixels'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the training scenes'
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a folder that was made with other settings',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        written = make_shapes(**vars(args))
    except (ValueError, FileExistsError) as error:
        sys.exit(f'error: {error}')
    print(
        f'{args.out_dir}: '
        f'{"written" if written else "already there, re-used"}, '
        f'{args.num_train} training and {args.num_val} held-out scenes'
    )


if __name__ == '__main__':
    main()

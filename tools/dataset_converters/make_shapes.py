"""Write scenes of geometric shapes with COCO json and ADE-style label maps."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.datasets import make_shapes


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('out_dir', help='the folder to write')
    add('--num-train', type=int, default=800, help='training scenes')
    add('--num-val', type=int, default=100, help='held-out scenes')
    add('--size', type=int, default=160, help='side of the images in pixels')
    add('--seed', type=int, default=0, help='seed of the training scenes')
    args = parser.parse_args(argv)
    with user_errors(parser):
        written = make_shapes(**vars(args))
    state = 'written' if written else 'already there, re-used'
    scenes = f'{args.num_train} training and {args.num_val} held-out scenes'
    print(f'{args.out_dir}: {state}, {scenes}')


if __name__ == '__main__':
    main()

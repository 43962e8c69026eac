"""Divide an annotation file of COCO's form into train.json and val.json."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.datasets.coco import split_coco


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('source', help='annotation file')
    add('out_dir', help='folder that takes both files; images stay in place')
    text = "share of the images, and of each class's objects, that is held out"
    add('--val-share', type=float, default=0.2, help=text)
    add('--seed', type=int, default=0, help='seed of the choice')
    args = parser.parse_args(argv)
    with user_errors(parser):
        summary = split_coco(**vars(args))
    for name, counts in summary.items():
        text = ', '.join(f'{count} {key}' for key, count in counts.items())
        print(f'{args.out_dir}/{name}.json: {text}')


if __name__ == '__main__':
    main()

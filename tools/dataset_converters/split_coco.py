"""Divide an annotation file of COCO's form into train.json and val.json."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.datasets.coco_split import split_coco


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('source', help='annotation file')
    parser.add_argument(
        'out_dir', help='folder that takes both files; images stay in place'
    )
    parser.add_argument(
        '--val-share',
        type=float,
        default=0.2,
        help='share of the images that is held out, with the same share of '
        "each class's objects as far as possible",
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the choice'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace files'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        summary = split_coco(**vars(args))
    for name, counts in summary.items():
        text = ', '.join(f'{count} {key}' for key, count in counts.items())
        print(f'{Path(args.out_dir, name)}.json: {text}')


if __name__ == '__main__':
    main()

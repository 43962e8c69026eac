"""Take the backbone out of a trained classifier, for init_cfg elsewhere.

The file goes into the dense configs by
``init_cfg=dict(type='Pretrained', checkpoint=DST)`` of the backbone.
"""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.convert import extract_backbone


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint of a classifier')
    parser.add_argument('dst', help='file to write')
    parser.add_argument(
        '--raw',
        action='store_true',
        help='take the trained weights; by default their moving average, '
        'where the file has one',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace dst if it exists'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        report = extract_backbone(
            args.src, args.dst, raw=args.raw, overwrite=args.overwrite
        )
    print(report)


if __name__ == '__main__':
    main()

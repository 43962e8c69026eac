"""Convert published MobileMamba checkpoints to this package's names.

Takes a classification file as published (tensors at the top level, under
``net`` or ``net_E``) or a detector's or segmentor's (under ``state_dict``) and
writes one that MMPretrain, MMDetection and MMSegmentation load with the
configs of this project. ``--reverse`` goes the other way.
"""

import argparse
import sys

from mmmobilemamba.checkpoints.checkpoint import CONTAINERS
from mmmobilemamba.checkpoints.convert import convert_file


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint file to read')
    parser.add_argument('dst', help='checkpoint file to write')
    parser.add_argument(
        '--container',
        choices=CONTAINERS,
        help='where the file keeps the tensors; by default the first that is '
        f'there of {", ".join(CONTAINERS)}, then the top level',
    )
    parser.add_argument(
        '--reverse',
        action='store_true',
        help="read this package's names, write published ones",
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace dst if it exists'
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    try:
        report = convert_file(
            args.src,
            args.dst,
            container=args.container,
            reverse=args.reverse,
            overwrite=args.overwrite,
        )
    except (OSError, KeyError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f'error: {message}', file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == '__main__':
    sys.exit(main())

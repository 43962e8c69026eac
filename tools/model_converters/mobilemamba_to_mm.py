"""Convert published MobileMamba checkpoints to this package's names.

Takes a classification file as published (tensors at the top level, under
``net`` or ``net_E``) or a detector's or segmentor's (under ``state_dict``) and
writes one that MMPretrain, MMDetection and MMSegmentation load with the
configs of this project.
"""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.convert import convert_file


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('src', help='checkpoint file to read')
    add('dst', help='checkpoint file to write')
    args = parser.parse_args(argv)
    with user_errors(parser):
        report = convert_file(args.src, args.dst)
    print(report)


if __name__ == '__main__':
    main()

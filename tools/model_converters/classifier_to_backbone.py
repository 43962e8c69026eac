"""Take the backbone out of a trained classifier, for init_cfg elsewhere.

The file goes into the dense configs by
``init_cfg=dict(type='Pretrained', checkpoint=DST)`` of the backbone.
"""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.convert import extract_backbone


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('src', help='checkpoint of a classifier')
    add('dst', help='file to write')
    text = 'take the trained weights; by default their moving average, where '
    text += 'the file has one'
    add('--raw', action='store_true', help=text)
    args = parser.parse_args(argv)
    with user_errors(parser):
        report = extract_backbone(args.src, args.dst, args.raw)
    print(report)


if __name__ == '__main__':
    main()

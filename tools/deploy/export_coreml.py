"""Convert a trained model to CoreML, for Macs, iPhones and iPads.

The package is checked in its structure only, as CoreML runs on a Mac.
"""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.deploy.export_arguments import (
    add_export_arguments,
    read_export_arguments,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add_export_arguments(
        parser,
        out='package to write, ending in .mlpackage',
        preprocess='take an image of CoreML, with mean, deviation and channel '
        'order inside',
    )
    parser.add_argument(
        '--precision',
        default='float32',
        choices=['float32', 'float16'],
        help='of weights and values; default: %(default)s',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = vars(parser.parse_args(argv))
    allow_mmengine_checkpoints()
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.coreml import export_coreml

        precision = args.pop('precision')
        cfg, checkpoint, out, options = read_export_arguments(args)
        report = export_coreml(cfg, checkpoint, out, options, precision)
    print(report)


if __name__ == '__main__':
    main()

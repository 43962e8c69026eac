"""Convert a trained model to CoreML, for Macs, iPhones and iPads."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.deploy.arguments import (
    add_export_arguments,
    read_export_arguments,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_export_arguments(parser, '.mlpackage')
    parser.add_argument(
        '--precision',
        default='float32',
        choices=['float32', 'float16'],
        help='of weights and values; default: %(default)s',
    )
    args = vars(parser.parse_args(argv))
    allow_mmengine_checkpoints()
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.coreml import export_coreml

        precision = args.pop('precision')
        job = read_export_arguments(args, '.mlpackage')
        report = export_coreml(*job, precision)
    print(report)


if __name__ == '__main__':
    main()

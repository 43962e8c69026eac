"""Convert a trained model to CoreML, for Macs, iPhones and iPads."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.deploy.arguments import (
    add_export_arguments,
    read_export_arguments,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_export_arguments(parser, '.mlpackage')
    kinds = ['float32', 'float16']
    text = 'of weights and values; default: float32'
    parser.add_argument(
        '--precision', default=kinds[0], choices=kinds, help=text
    )
    args = vars(parser.parse_args(argv))
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.coreml import export_coreml

        print(export_coreml(*read_export_arguments(args, '.mlpackage')))


if __name__ == '__main__':
    main()

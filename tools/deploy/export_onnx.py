"""Export a trained model to ONNX, and prove that it computes the same."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.deploy.arguments import (
    add_export_arguments,
    read_export_arguments,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_export_arguments(parser, '.onnx')
    add, flag = parser.add_argument, dict(action='store_true')
    text = 'take images of any size; --size is then the traced one'
    add('--dynamic-size', **flag, help=text)
    text = 'take any batch, of classifiers and segmentors'
    add('--dynamic-batch', **flag, help=text)
    text = 'image, or folder of images, to compare on besides noise'
    add('--images', help=text)
    text = 'largest relative error; default: %(default)s'
    add('--tolerance', type=float, default=1e-4, help=text)
    args = vars(parser.parse_args(argv))
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.export import export_model

        job = read_export_arguments(args, '.onnx')
        print(*export_model(*job), sep='\n')
    print(f'written: {job[2]}')


if __name__ == '__main__':
    main()

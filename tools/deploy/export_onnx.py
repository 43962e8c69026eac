"""Export a trained model to ONNX, and prove that it computes the same."""

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
        out='file to write, ending in .onnx',
        preprocess='take uint8 pixels in the order blue, green, red, with '
        'mean, deviation and channel order inside',
    )
    parser.add_argument(
        '--opset',
        type=int,
        default=17,
        help='version of the ONNX operators, 17 to 21; default: %(default)s',
    )
    parser.add_argument(
        '--dynamic-size',
        action='store_true',
        help='take pictures of any size; --size is then the traced one',
    )
    parser.add_argument(
        '--dynamic-batch', action='store_true', help='take any batch'
    )
    parser.add_argument(
        '--fixed-count',
        action='store_true',
        help='of a detector: always give as many boxes as the config keeps '
        'at most, those beyond with label -1',
    )
    parser.add_argument(
        '--no-deploy',
        dest='deploy',
        action='store_false',
        help='leave norms beside the convolutions',
    )
    parser.add_argument(
        '--scan',
        dest='form',
        default='chunked',
        choices=['chunked', 'doubling', 'scan'],
        help='form of the scan in the graph; default: %(default)s',
    )
    parser.add_argument(
        '--images',
        help='picture, or folder of pictures, to compare on besides noise',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-4,
        help='largest relative error; default: %(default)s',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = vars(parser.parse_args(argv))
    allow_mmengine_checkpoints()
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.export import export_onnx

        images = args.pop('images')
        cfg, checkpoint, out, options = read_export_arguments(args)
        report = export_onnx(cfg, checkpoint, out, options, images)
    print(report)


if __name__ == '__main__':
    main()

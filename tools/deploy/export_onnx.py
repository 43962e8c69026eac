"""Export a trained model to ONNX, and prove that it computes the same."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.deploy.arguments import (
    add_export_arguments,
    read_export_arguments,
)

MAX_IMAGES = 8  # that are compared


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
    allow_mmengine_checkpoints()
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.export import export_model
        from mmmobilemamba.deploy.images import read_images
        from mmmobilemamba.deploy.networks import describe

        folder = args.pop('images')
        model, kind, out, options = read_export_arguments(args, '.onnx')
        channels = describe(model, kind, options)['channels']
        images = read_images(folder, MAX_IMAGES, channels) if folder else ()
        report = export_model(model, kind, out, options, images)
    print(*report, f'written: {out}', sep='\n')


if __name__ == '__main__':
    main()

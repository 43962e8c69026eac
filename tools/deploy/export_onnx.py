"""Export a trained model to ONNX, and prove that it computes the same."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints
from mmmobilemamba.utils.checkpoint import check_checkpoint_file
from mmmobilemamba.utils.cli import add_cfg_options, user_errors
from mmmobilemamba.utils.config import load_config


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument('checkpoint', help='checkpoint file of its model')
    parser.add_argument('out', help='file to write, ending in .onnx')
    parser.add_argument(
        '--opset',
        type=int,
        default=17,
        help='version of the ONNX operators, 17 to 21; default: %(default)s',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels of a picture; default: those of the config's test",
    )
    parser.add_argument(
        '--dynamic-size',
        action='store_true',
        help='take pictures of any size; --size is then the traced one',
    )
    parser.add_argument(
        '--batch',
        type=int,
        default=1,
        help='pictures of a batch; default: %(default)s',
    )
    parser.add_argument(
        '--dynamic-batch', action='store_true', help='take any batch'
    )
    parser.add_argument(
        '--preprocess',
        action='store_true',
        help='take uint8 pixels in the order blue, green, red, with mean, '
        'deviation and channel order inside',
    )
    parser.add_argument(
        '--backbone',
        action='store_true',
        help='export the maps of the backbone alone',
    )
    parser.add_argument(
        '--argmax',
        action='store_true',
        help='of a segmentor: give the label of each pixel, not its scores',
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
    add_cfg_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = vars(parser.parse_args(argv))
    allow_mmengine_checkpoints()
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.export import ExportOptions, export_onnx

        paths = [args.pop(key) for key in ('config', 'checkpoint', 'out')]
        cfg_options, images = args.pop('cfg_options'), args.pop('images')
        if args['size']:
            args['size'] = tuple(args['size'])
        options = ExportOptions(**args)
        options.check_ranges()
        config, checkpoint, out = paths
        check_checkpoint_file(checkpoint)
        cfg = load_config(config, cfg_options)
        report = export_onnx(cfg, checkpoint, out, options, images)
    print(report)


if __name__ == '__main__':
    main()

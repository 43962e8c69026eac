"""Convert a trained model to CoreML, for Macs, iPhones and iPads.

The package is checked in its structure only, as CoreML runs on a Mac.
"""

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
    parser.add_argument('out', help='package to write, ending in .mlpackage')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels of a picture; default: those of the config's test",
    )
    parser.add_argument(
        '--batch',
        type=int,
        default=1,
        help='pictures of a batch; default: %(default)s',
    )
    parser.add_argument(
        '--preprocess',
        action='store_true',
        help='take an image of CoreML, with mean, deviation and channel '
        'order inside',
    )
    parser.add_argument(
        '--backbone',
        action='store_true',
        help='convert the maps of the backbone alone',
    )
    parser.add_argument(
        '--argmax',
        action='store_true',
        help='of a segmentor: give the label of each pixel, not its scores',
    )
    parser.add_argument(
        '--precision',
        default='float32',
        choices=['float32', 'float16'],
        help='of weights and values; default: %(default)s',
    )
    add_cfg_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = vars(parser.parse_args(argv))
    allow_mmengine_checkpoints()
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.coreml import export_coreml
        from mmmobilemamba.deploy.options import ExportOptions

        config, checkpoint, out = (
            args.pop(key) for key in ('config', 'checkpoint', 'out')
        )
        cfg_options = args.pop('cfg_options')
        precision = args.pop('precision')
        if args['size']:
            args['size'] = tuple(args['size'])
        options = ExportOptions(**args)
        options.check_ranges()
        check_checkpoint_file(checkpoint)
        cfg = load_config(config, cfg_options)
        report = export_coreml(cfg, checkpoint, out, options, precision)
    print(report)


if __name__ == '__main__':
    main()

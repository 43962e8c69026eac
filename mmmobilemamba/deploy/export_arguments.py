"""Arguments of the tools that export a trained model."""

import argparse
from typing import TYPE_CHECKING

from mmengine.config import Config

from ..apis.command_line import add_cfg_options
from ..apis.config import load_config
from ..checkpoints.checkpoint import check_checkpoint_file

if TYPE_CHECKING:
    from .options import ExportOptions


def add_export_arguments(
    parser: argparse.ArgumentParser, out: str, preprocess: str
) -> None:
    """Add the model and the options that every format has.

    Args:
        parser (argparse.ArgumentParser): Parser of a tool.
        out (str): Help for what is written.
        preprocess (str): Help for ``--preprocess``.
    """
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument('checkpoint', help='checkpoint file of its model')
    parser.add_argument('out', help=out)
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
    parser.add_argument('--preprocess', action='store_true', help=preprocess)
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
    add_cfg_options(parser)


def read_export_arguments(
    args: dict,
) -> tuple[Config, str, str, 'ExportOptions']:
    """Check what :func:`add_export_arguments` asked for.

    Args:
        args (dict): Arguments of a tool by name; the rest of them are
            options of the export.

    Returns:
        tuple: Config, checkpoint, what to write, and the options.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An option is out of range.
    """
    # Its requirements are an extra of their own.
    from .options import ExportOptions

    args = dict(args)
    config, checkpoint, out, cfg_options = (
        args.pop(key) for key in ('config', 'checkpoint', 'out', 'cfg_options')
    )
    if args['size']:
        args['size'] = tuple(args['size'])
    options = ExportOptions(**args)
    options.check_ranges()
    check_checkpoint_file(checkpoint)
    return load_config(config, cfg_options), checkpoint, out, options

"""Arguments of the tools that export a model or run an exported file."""

from argparse import ArgumentParser, Namespace

from torch import nn

from ..apis.command_line import add_cfg_options
from ..apis.config import load_config
from ..apis.inference import load_model
from ..checkpoints.checkpoint import check_checkpoint_file
from . import RUNTIMES, is_onnx
from .options import ExportOptions, image_size, kind_of

_SWITCHES = dict(
    preprocess='take uint8 pixels in the order blue, green, red, with mean, '
    'deviation and channel order inside',
    backbone='export the maps of the backbone alone',
)

# Options of a model that hold for its exported network, too.
_STILL_READ = (
    'model.data_preprocessor',
    'model.test_cfg.mode',
    'model.test_cfg.stride',
    'model.test_cfg.crop_size',
)


def add_runtime_arguments(parser: ArgumentParser) -> None:
    """Add what runs an exported file to the parser of a tool."""
    parser.add_argument(
        '--runtime',
        choices=RUNTIMES,
        help=f'what runs an .onnx file; default: {RUNTIMES[0]}',
    )
    parser.add_argument(
        '--threads', type=int, help='threads that run an .onnx file'
    )


def runtime_of(args: Namespace) -> dict:
    """Return ``runtime`` and ``threads``; refuse what would have no effect."""
    if not is_onnx(args.checkpoint):
        for name in ('runtime', 'threads'):
            value = getattr(args, name)
            if value is not None:
                raise ValueError(
                    f'--{name} {value} is for an .onnx file; '
                    f'{args.checkpoint} is a checkpoint.'
                )
    else:
        for key in args.cfg_options or ():
            if key.startswith('model.') and not key.startswith(_STILL_READ):
                raise ValueError(
                    f'--cfg-options {key} would change nothing: the network '
                    f'is {args.checkpoint}, as it was exported.'
                )
    return dict(runtime=args.runtime or RUNTIMES[0], threads=args.threads)


def add_export_arguments(parser: ArgumentParser, suffix: str) -> None:
    """Add the model and the options that every format has."""
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    add('checkpoint', help='checkpoint file of its model')
    add('out', help=f'what to write, ending in {suffix}')
    add(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels of an image; default: those of the config's test",
    )
    for name, text in _SWITCHES.items():
        add(f'--{name}', action='store_true', help=text)
    add_cfg_options(parser)


def read_export_arguments(
    args: dict, suffix: str
) -> tuple[nn.Module, str, str, ExportOptions]:
    """Load what :func:`add_export_arguments` asked for.

    Takes the arguments by name, and what the export is called with besides
    them; returns the model, its kind, what to write, and the options.
    """
    args = dict(args)
    config, checkpoint, out, cfg_options = (
        args.pop(key) for key in ('config', 'checkpoint', 'out', 'cfg_options')
    )
    check_checkpoint_file(checkpoint)
    cfg = load_config(config, cfg_options)
    args['size'] = tuple(args['size'] or image_size(cfg))
    options = ExportOptions(**args)
    options.check(out, suffix)
    kind = 'backbone' if options.backbone else kind_of(cfg)
    return load_model(cfg, checkpoint, 'cpu'), kind, out, options

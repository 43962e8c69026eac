"""What the tools are told that export a model or run an exported file."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass

from mmengine.config import Config
from torch import nn

from ..apis.command_line import add_cfg_options
from ..apis.config import load_config
from ..apis.inference import load_model
from ..checkpoints.checkpoint import check_checkpoint_file
from ..checkpoints.safe_loading import allow_mmengine_checkpoints
from ..datasets.data_paths import first_dataset
from . import RUNTIMES, is_onnx

MIN_SIDE = 32  # pixels, of the backbone
KINDS = dict(mmdet='detector', mmseg='segmentor', mmpretrain='classifier')
# Options of a model that hold for its exported network, too.
_STILL_READ = (
    'model.data_preprocessor',
    'model.test_cfg.mode',
    'model.test_cfg.stride',
    'model.test_cfg.crop_size',
)


@dataclass
class ExportOptions:
    """How a model is exported."""

    # Height and width in pixels, of the traced image where the size is free.
    size: tuple[int, int]
    dynamic_size: bool = False  # leave it free
    dynamic_batch: bool = False  # leave the batch free, which is 1 otherwise
    # Take uint8 pixels as OpenCV reads them; mean, std and order are inside.
    preprocess: bool = False
    backbone: bool = False  # export its maps alone
    images: str | None = None  # file or folder, to compare on besides noise
    tolerance: float = 1e-4  # largest relative error
    precision: str = 'float32'  # or float16, of CoreML


def add_runtime_arguments(parser: ArgumentParser) -> None:
    """Add what runs an exported file to the parser of a tool."""
    text = f'what runs an .onnx file; default: {RUNTIMES[0]}'
    parser.add_argument('--runtime', choices=RUNTIMES, help=text)
    text = 'threads that run an .onnx file'
    parser.add_argument('--threads', type=int, help=text)


def runtime_of(args: Namespace) -> dict:
    """Return ``runtime`` and ``threads``; refuse options of no effect."""
    onnx = is_onnx(args.checkpoint)
    for name in ('compile',) if onnx else ('runtime', 'threads'):
        if getattr(args, name):
            raise ValueError(f'--{name} is of no use to {args.checkpoint}.')
    for key in (args.cfg_options if onnx else None) or ():
        if key.startswith('model.') and not key.startswith(_STILL_READ):
            raise ValueError(
                f'--cfg-options {key} would change nothing: the network is '
                f'{args.checkpoint}, as it was exported.'
            )
    return dict(runtime=args.runtime or RUNTIMES[0], threads=args.threads)


def add_export_arguments(parser: ArgumentParser, suffix: str) -> None:
    """Add the model and the options that every format has."""
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    add('checkpoint', help='checkpoint file of its model')
    add('out', help=f'what to write, ending in {suffix}')
    text = "pixels of an image; default: those of the config's test"
    sides = dict(nargs=2, metavar=('HEIGHT', 'WIDTH'))
    add('--size', type=int, **sides, help=text)
    text = 'take uint8 pixels in the order blue, green, red, with mean, '
    text += 'deviation and channel order inside'
    add('--preprocess', action='store_true', help=text)
    text = 'export the maps of the backbone alone'
    add('--backbone', action='store_true', help=text)
    add_cfg_options(parser)


def read_export_arguments(
    args: dict, suffix: str
) -> tuple[nn.Module, str, str, ExportOptions]:
    """Load what :func:`add_export_arguments` asked for.

    Takes the arguments by name, and what the export is called with besides
    them; returns the model, its kind, what to write, and the options.
    """
    names = ('config', 'checkpoint', 'out', 'cfg_options')
    config, checkpoint, out, cfg_options = map(args.pop, names)
    if not out.endswith(suffix):
        raise ValueError(f'out must end in {suffix}, got {out}.')
    check_checkpoint_file(checkpoint)
    allow_mmengine_checkpoints()
    cfg = load_config(config, cfg_options)
    scope = cfg.get('default_scope')
    if scope not in KINDS or not cfg.get('test_dataloader'):
        raise ValueError(
            f'{config} needs a test_dataloader, and a model of '
            f'{", ".join(KINDS)} or a default_scope.'
        )
    args['size'] = tuple(args['size'] or image_size(cfg))
    options = ExportOptions(**args)
    model = load_model(cfg, checkpoint, 'cpu')
    kind = 'backbone' if options.backbone else KINDS[scope]
    return model, kind, out, options


def image_size(cfg: Config) -> tuple[int, int]:
    """Read height and width of a test image, or of a window, in pixels."""
    test_cfg = cfg.model.get('test_cfg') or {}
    if test_cfg.get('mode') == 'slide':
        return tuple(test_cfg['crop_size'])
    steps = first_dataset(cfg.test_dataloader.dataset).pipeline
    sizes = [step.get('crop_size') or step.get('scale') for step in steps]
    sizes = [size for size in sizes if size]
    if not sizes:
        raise ValueError(
            "The config's test pipeline does not say the size of an image; "
            'pass --size HEIGHT WIDTH.'
        )
    # widths come first, and crops are square
    size = sizes[-1]
    return (size, size) if isinstance(size, int) else tuple(size[::-1])

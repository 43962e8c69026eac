"""Converting a model to CoreML, which runs on a Mac or an iPhone only."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from packaging.version import Version
from torch import Tensor, nn

from ..ops import export_form
from . import METADATA
from .images import random_image
from .networks import build_network, describe
from .options import ExportOptions

PRECISIONS = ('float32', 'float16')
SUFFIX = '.mlpackage'


def export_coreml(
    model: nn.Module,
    kind: str,
    out: str | os.PathLike,
    options: ExportOptions,
    precision: str = 'float32',
) -> str:
    """Convert a model of MMSegmentation or MMPretrain, or a backbone.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'`` or ``'segmentor'``.
        out (str or PathLike): Package to write, ending in ``.mlpackage``;
            whole or not at all.
        options (ExportOptions): How; ``size`` is given, size and batch are
            fixed.
        precision (str): ``'float32'`` or ``'float16'``. Defaults to
            ``'float32'``.

    Returns:
        str: What was written, and what is left to check on a Mac.

    Raises:
        FileExistsError: ``out`` is there already.
        ImportError: coremltools is not installed.
        ValueError: The model cannot be converted.
    """
    _check(kind, out, options, precision)
    ct = _import_coremltools()
    metadata = dict(describe(model, kind, options), precision=precision)
    network = build_network(model, kind, options, metadata)
    image = random_image(options, options.size, metadata['channels'], seed=0)
    shape = tuple(image.shape)
    tensor = ct.TensorType(name='image', shape=shape)
    if options.preprocess:
        tensor = ct.ImageType(
            name='image', shape=shape, color_layout=_layout(ct, shape[1])
        )
    with torch.no_grad(), export_form():
        traced = torch.export.export(network, (image.float(),))
        # What coremltools has no counterpart of.
        traced = traced.run_decompositions(
            {
                torch.ops.aten.addcmul.default: _addcmul,
                torch.ops.aten.__and__.Tensor: torch.logical_and,
            }
        )
    try:
        package = ct.convert(
            traced,
            inputs=[tensor],
            outputs=[ct.TensorType(name=n) for n in network.output_names],
            convert_to='mlprogram',
            compute_precision=getattr(ct.precision, precision.upper()),
            skip_model_load=True,  # nothing here could run it
        )
    except (NotImplementedError, ValueError, TypeError) as error:
        raise ValueError(
            f'{type(model).__name__} cannot be converted by coremltools '
            f'{ct.__version__} with torch {torch.__version__}: {error}'
        ) from error
    package.user_defined_metadata[METADATA] = json.dumps(metadata)
    with _whole_package(Path(out)) as draft:
        package.save(str(draft))
    return (
        f'{out}: image {"x".join(map(str, shape))} in, '
        f'{", ".join(network.output_names)} out. Its values are not checked: '
        'CoreML runs on a Mac only. Compare there what coremltools gives by '
        'MLModel.predict with the model in PyTorch.'
    )


def _check(kind: str, out, options: ExportOptions, precision: str) -> None:
    """Refuse what cannot be converted, before the work."""
    options.check(kind, out, SUFFIX)
    if kind == 'detector':
        raise ValueError(
            'Detectors are not converted to CoreML; --backbone converts the '
            'maps of their backbone, and export_onnx.py all of them.'
        )
    if options.dynamic_size or options.dynamic_batch:
        raise ValueError('Size and batch are fixed in CoreML.')
    if options.preprocess and options.batch != 1:
        raise ValueError(
            'With preprocess CoreML takes one image, got batch='
            f'{options.batch}.'
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision must be one of {PRECISIONS}, got {precision!r}.'
        )
    if os.path.lexists(out):
        raise FileExistsError(f'{out} is there already; remove it first.')


def _layout(ct, channels: int):
    """Return what CoreML calls an image of so many channels."""
    layouts = {1: ct.colorlayout.GRAYSCALE, 3: ct.colorlayout.BGR}
    if channels not in layouts:
        raise ValueError(
            f'Images of CoreML have 1 or 3 channels, and the model takes '
            f'{channels}; leave out --preprocess.'
        )
    return layouts[channels]


def _import_coremltools():
    """Import coremltools without its news that this is no Mac."""
    if Version(torch.__version__) < Version('2.5'):
        raise ImportError(
            'The conversion to CoreML needs torch 2.5 or later, and this is '
            f'{torch.__version__}.'
        )
    logging.getLogger('coremltools').addFilter(
        lambda record: not record.getMessage().startswith('Failed to load _ML')
    )
    try:
        import coremltools
    except ImportError as error:
        raise ImportError(
            'coremltools is not installed; run `pip install coremltools`.'
        ) from error
    return coremltools


def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + value * a * b


@contextmanager
def _whole_package(path: Path) -> Iterator[Path]:
    """Give a path for a package, which is moved to ``path`` at the end."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder:
        draft = Path(folder, path.name)
        yield draft
        draft.rename(path)

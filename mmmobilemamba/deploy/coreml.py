"""Converting a model to CoreML, and checking what can be checked anywhere.

CoreML runs on a Mac only. Elsewhere the converted program is read back and its
inputs, outputs, operators and weights are compared with what was traced.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from packaging.version import Version
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..apis.inference import load_model
from .build import build_network, describe
from .coreml_structure import CoreMLReport, read_back
from .graph import METADATA
from .networks import Network
from .options import ExportOptions, kind_of, with_size
from .pictures import random_image

PRECISIONS = ('float32', 'float16')
SUFFIX = '.mlpackage'


def export_coreml(
    cfg: Config,
    checkpoint: str,
    out: str | os.PathLike,
    options: ExportOptions | None = None,
    precision: str = 'float32',
) -> CoreMLReport:
    """Convert the model of a config to CoreML.

    Args:
        cfg (Config): Config of MMSegmentation or MMPretrain, or of
            MMDetection for a backbone alone.
        checkpoint (str): Checkpoint of its model.
        out (str or PathLike): Package to write, ending in ``.mlpackage``;
            whole or not at all.
        options (ExportOptions, optional): How; size and batch are fixed.
            Defaults to None, which takes all defaults.
        precision (str): ``'float32'`` or ``'float16'``. Defaults to
            ``'float32'``.

    Returns:
        CoreMLReport: What was written.

    Raises:
        FileExistsError: ``out`` is there already.
        ImportError: coremltools is not installed.
        ValueError: An option, the checkpoint or the model does not fit.
    """
    options = options or ExportOptions()
    kind = 'backbone' if options.backbone else kind_of(cfg)
    _check(kind, out, options, precision)
    _import_coremltools()
    options = with_size(options, cfg, kind)
    model = load_model(cfg, checkpoint, 'cpu')
    return export_coreml_model(model, kind, out, options, precision)


def export_coreml_model(
    model: nn.Module,
    kind: str,
    out: str | os.PathLike,
    options: ExportOptions,
    precision: str = 'float32',
) -> CoreMLReport:
    """Convert a model that is built and filled.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'`` or ``'segmentor'``.
        out (str or PathLike): Package to write.
        options (ExportOptions): How; ``size`` is given.
        precision (str): See :func:`export_coreml`. Defaults to
            ``'float32'``.

    Returns:
        CoreMLReport: What was written.

    Raises:
        FileExistsError: ``out`` is there already.
        ImportError: coremltools is not installed.
        ValueError: The model cannot be converted, or what was written has
            another structure.
    """
    _check(kind, out, options, precision)
    ct = _import_coremltools()
    metadata = describe(model, kind, options)
    metadata['precision'] = precision
    network = build_network(model, kind, options, metadata)
    traced = _trace(network, options)
    shape = (options.batch, 3, *options.size)
    image = ct.TensorType(name='image', shape=shape)
    if options.preprocess:
        image = ct.ImageType(
            name='image', shape=shape, color_layout=ct.colorlayout.BGR
        )
    try:
        package = ct.convert(
            traced,
            inputs=[image],
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
        report = read_back(ct, draft, package, network, traced)
    return replace(report, path=Path(out))


def _check(kind: str, out, options: ExportOptions, precision: str) -> None:
    """Refuse what cannot be converted, before the work."""
    options.check(kind)
    if kind == 'detector':
        raise ValueError(
            'Detectors are not converted to CoreML; --backbone converts the '
            'maps of their backbone, and export_onnx.py all of them.'
        )
    if options.dynamic_size or options.dynamic_batch:
        raise ValueError('Size and batch are fixed in CoreML.')
    if options.form == 'scan':
        raise ValueError(
            "form='scan' is an operator of ONNX; take 'chunked' or "
            "'doubling' for CoreML."
        )
    if options.preprocess and options.batch != 1:
        raise ValueError(
            'With preprocess CoreML takes one picture, got batch='
            f'{options.batch}.'
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision must be one of {PRECISIONS}, got {precision!r}.'
        )
    if not str(out).endswith(SUFFIX):
        raise ValueError(f'out must end in {SUFFIX}, got {out}.')
    if os.path.lexists(out):
        raise FileExistsError(f'{out} is there already; remove it first.')


def _import_coremltools():
    """Import coremltools without its news that this is no Mac."""
    if Version(torch.__version__) < Version('2.5'):
        raise ImportError(
            'The conversion to CoreML needs torch 2.5 or later, and this is '
            f'{torch.__version__}.'
        )
    logger = logging.getLogger('coremltools')

    def is_news(record):
        return not record.getMessage().startswith('Failed to load _ML')

    logger.addFilter(is_news)
    try:
        import coremltools
    except ImportError as error:
        raise ImportError(
            'coremltools is not installed; run `pip install coremltools`.'
        ) from error
    return coremltools


def _trace(network: Network, options: ExportOptions) -> ExportedProgram:
    image = random_image(options, options.size, seed=0).float()
    with torch.no_grad():
        traced = torch.export.export(network, (image,))

    # What coremltools has no counterpart of.
    return traced.run_decompositions(
        {
            torch.ops.aten.addcmul.default: _addcmul,
            torch.ops.aten.__and__.Tensor: torch.logical_and,
        }
    )


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

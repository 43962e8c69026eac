"""Converting a model to CoreML, and checking what can be checked anywhere.

CoreML runs on a Mac only. Elsewhere the converted program is read back and its
inputs, outputs, operators and weights are compared with what was traced.
"""

import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config
from packaging.version import Version
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..utils.inference import load_model
from .build import build_network, describe
from .graph import METADATA
from .networks import Network
from .options import ExportOptions, kind_of, with_size
from .pictures import random_image

PRECISIONS = ('float32', 'float16')
SUFFIX = '.mlpackage'
# CoreML's tensors have no more dimensions.
MAX_RANK = 5
# Operators that multiply with weights, in ATen and in CoreML.
_ATEN_WEIGHTS = ('conv2d', 'conv_transpose2d', 'linear')
_MIL_WEIGHTS = ('conv', 'conv_transpose', 'linear')


@dataclass
class CoreMLReport:
    """What was written.

    Args:
        path (Path): Package.
        inputs (dict[str, tuple[int]]): Shapes by name.
        outputs (dict[str, tuple[int]]): Shapes by name.
        operators (Counter): How many there are of each type.
        weights (int): Numbers that convolutions and linear layers multiply
            with.
        size_mb (float): Size of the package in 10^6 bytes.
    """

    path: Path
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    operators: Counter
    weights: int
    size_mb: float

    def __str__(self) -> str:
        lines = [
            f'{kind} {name}: {"x".join(map(str, shape))}'
            for kind, tensors in (
                ('input', self.inputs),
                ('output', self.outputs),
            )
            for name, shape in tensors.items()
        ]
        common = ', '.join(
            f'{count} {name}' for name, count in self.operators.most_common(5)
        )
        return '\n'.join(
            [
                *lines,
                f'{self.operators.total()} operators: {common}, ...',
                f'{self.weights / 1e6:.2f} M weights of convolutions and '
                'linear layers, as many as in PyTorch',
                f'{self.path}: {self.size_mb:.1f} MB; its structure is '
                'checked, its values are not: CoreML runs on a Mac only',
            ]
        )


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
        report = _read_back(ct, draft, package, network, traced)
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


def _read_back(
    ct, path: Path, package, network: Network, traced: ExportedProgram
) -> CoreMLReport:
    """Compare a written package with what was traced."""
    spec = ct.utils.load_spec(str(path))
    if spec.WhichOneof('Type') != 'mlProgram':
        raise ValueError(f'{path.name} holds no ML program.')
    program = package._mil_program.functions['main']
    operators = [op for op in program.operations if op.op_type != 'const']
    _same('inputs', _shapes(spec.description.input), _traced_input(traced))
    outputs = {out.name: tuple(out.shape) for out in program.outputs}
    _same('outputs', outputs, _traced_outputs(traced, network.output_names))
    names = [output.name for output in spec.description.output]
    _same('names of outputs', names, list(network.output_names))
    deep = [
        op.name
        for op in operators
        if any(out.rank > MAX_RANK for out in op.outputs)
    ]
    _same(f'operators of more than {MAX_RANK} dimensions', deep, [])
    weights = sum(
        op.weight.val.size for op in operators if op.op_type in _MIL_WEIGHTS
    )
    _same('numbers of weights', weights, _traced_weights(traced))
    size = sum(f.stat().st_size for f in path.rglob('*') if f.is_file())
    return CoreMLReport(
        path,
        _shapes(spec.description.input),
        outputs,
        Counter(op.op_type for op in operators),
        weights,
        size / 1e6,
    )


def _same(what: str, got, wanted) -> None:
    if got != wanted:
        raise ValueError(
            f'The package differs from the model in its {what}: {got} '
            f'instead of {wanted}; no package was written.'
        )


def _shapes(descriptions) -> dict[str, tuple[int, ...]]:
    """Read shapes by name; a picture of CoreML has three channels."""
    shapes = {}
    for description in descriptions:
        kind = description.type
        if kind.WhichOneof('Type') == 'imageType':
            picture = kind.imageType
            shape = (1, 3, picture.height, picture.width)
        else:
            shape = tuple(kind.multiArrayType.shape)
        shapes[description.name] = shape
    return shapes


def _traced_input(traced: ExportedProgram) -> dict[str, tuple[int, ...]]:
    (name,) = traced.graph_signature.user_inputs
    (node,) = (node for node in traced.graph.nodes if node.name == name)
    return {name: tuple(node.meta['val'].shape)}


def _traced_outputs(
    traced: ExportedProgram, names: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    (output,) = (node for node in traced.graph.nodes if node.op == 'output')
    shapes = (tuple(node.meta['val'].shape) for node in output.args[0])
    return dict(zip(names, shapes, strict=True))


def _traced_weights(traced: ExportedProgram) -> int:
    return sum(
        node.args[1].meta['val'].numel()
        for node in traced.graph.nodes
        if node.op == 'call_function'
        and node.target.__name__.partition('.')[0] in _ATEN_WEIGHTS
    )

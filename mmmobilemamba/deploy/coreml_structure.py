"""Comparing a package for CoreML with the graph that it came from."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from torch.export import ExportedProgram

from .networks import Network

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


def read_back(
    ct, path: Path, package, network: Network, traced: ExportedProgram
) -> CoreMLReport:
    """Compare a written package with what was traced.

    Args:
        ct (module): coremltools.
        path (Path): Package.
        package (MLModel): What was written.
        network (Network): What was traced.
        traced (ExportedProgram): Its graph.

    Returns:
        CoreMLReport: What the package holds.

    Raises:
        ValueError: It has another structure than the graph.
    """
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
    _same('numbers of weights', weights, traced_weights(traced))
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


def traced_weights(traced: ExportedProgram) -> int:
    """Count what convolutions and linear layers multiply with.

    Args:
        traced (ExportedProgram): Graph of ATen's operators.

    Returns:
        int: Numbers.
    """
    return sum(
        node.args[1].meta['val'].numel()
        for node in traced.graph.nodes
        if node.op == 'call_function'
        and node.target.__name__.partition('.')[0] in _ATEN_WEIGHTS
    )

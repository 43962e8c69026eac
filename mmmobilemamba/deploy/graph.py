"""What happens to a traced graph before it is a file: standard and small."""

import json
import os
import tempfile

import onnx
import onnxruntime
from onnx import TensorProto, helper, version_converter

from ..version import __version__
from . import METADATA
from .scan import DOMAIN

MIN_OPSET, MAX_OPSET = 17, 21
# The tracer writes up to this one; what is newer is converted.
TRACED_OPSET = 20


def check_opset(opset: int) -> None:
    """Refuse an opset that cannot be written.

    Args:
        opset (int): Version of the ONNX operators.

    Raises:
        ValueError: It is not 17 to 21.
    """
    if opset not in range(MIN_OPSET, MAX_OPSET + 1):
        raise ValueError(
            f'opset must be {MIN_OPSET} to {MAX_OPSET}, got {opset!r}.'
        )


def insert_scans(model: onnx.ModelProto) -> None:
    """Replace the placeholders of the recurrence by ONNX Scan, in place.

    Args:
        model (onnx.ModelProto): Traced model.
    """
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.domain == DOMAIN:
            node = _scan_node(node)
        model.graph.node.append(node)
    # The tracer's shapes stop at the placeholders.
    del model.graph.value_info[:]
    kept = [o for o in model.opset_import if o.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _scan_node(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return the Scan of ``state = a * state + b`` along axis 2."""
    decay, inflow, start = node.input

    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    body = helper.make_graph(
        [
            # In this order: OpenVINO 2026.4 computes "a * before" wrongly.
            helper.make_node('Mul', ['before', 'a'], ['kept']),
            helper.make_node('Add', ['b', 'kept'], ['after']),
            helper.make_node('Identity', ['after'], ['state']),
        ],
        'recurrence',
        [value('before'), value('a'), value('b')],
        [value('after'), value('state')],
    )
    return helper.make_node(
        'Scan',
        [start, decay, inflow],
        [f'{node.output[0]}_last', node.output[0]],
        name=node.name,
        num_scan_inputs=2,
        scan_input_axes=[2, 2],
        scan_output_axes=[2],
        body=body,
    )


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and drop what computes nothing.

    onnxruntime does so at the lowest level of its optimiser, whose results
    are standard operators.

    Args:
        model (onnx.ModelProto): Model.

    Returns:
        onnx.ModelProto: A model with the same outputs.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, 'model.onnx')
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=['CPUExecutionProvider'],
        )
        model = onnx.load(options.optimized_model_filepath)
    kept = [o for o in model.opset_import if not o.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def finish(
    model: onnx.ModelProto, opset: int, metadata: dict
) -> onnx.ModelProto:
    """Turn a traced model into the one to write.

    Args:
        model (onnx.ModelProto): Traced model, changed in place.
        opset (int): Version of the operators to write.
        metadata (dict): What a runtime has to know, as JSON holds it.

    Returns:
        onnx.ModelProto: Checked model of standard operators.
    """
    insert_scans(model)
    model = simplify(model)
    if opset > TRACED_OPSET:
        model = version_converter.convert_version(model, opset)
    model.producer_name, model.producer_version = METADATA, __version__
    set_metadata(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    foreign = {node.domain for node in model.graph.node} - {''}
    if foreign:
        raise ValueError(
            f'The graph holds operators of {", ".join(sorted(foreign))}, '
            'which are not standard ONNX.'
        )
    return model


def set_metadata(model: onnx.ModelProto, metadata: dict) -> None:
    """Write what a runtime has to know into a model.

    Args:
        model (onnx.ModelProto): Model, changed in place.
        metadata (dict): What JSON can hold.
    """
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA: json.dumps(metadata)})

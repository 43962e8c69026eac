"""From a network in PyTorch to a graph of standard ONNX operators."""

import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack

import onnx
import onnxruntime
import torch
from onnx import helper
from torch import Tensor, nn
from torch.onnx import symbolic_helper

from ..ops.scan_pytorch import export_form
from ..version import __version__
from . import METADATA

OPSET = 17  # what is newer, the fewer runtimes read


def make_graph(
    network: nn.Module,
    image: Tensor,
    output_names: Sequence[str],
    metadata: dict,
    free: Sequence[int] = (),
) -> onnx.ModelProto:
    """Trace a network and simplify its graph.

    Args:
        network (nn.Module): Network in evaluation mode without gradients,
            with one input and a tensor, or several, as output.
        image (Tensor): Input to trace it with.
        output_names (Sequence[str]): Names of the outputs.
        metadata (dict): What a runtime has to know, as JSON holds it.
        free (Sequence[int]): Dimensions of the input that are free. Defaults
            to none.

    Returns:
        onnx.ModelProto: Checked model of standard operators.
    """
    names = ('batch', 'channels', 'height', 'width')
    options = onnxruntime.SessionOptions()
    # Folds constants, and drops what computes nothing.
    basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.graph_optimization_level = basic
    options.log_severity_level = 3
    symbols = {'aten::softplus': _softplus, 'aten::unflatten': _unflatten}
    with ExitStack() as stack:
        for name, symbol in symbols.items():
            torch.onnx.register_custom_op_symbolic(name, symbol, OPSET)
            undo = torch.onnx.unregister_custom_op_symbolic
            stack.callback(undo, name, OPSET)
        stack.enter_context(export_form(free_size=2 in free))
        # The tracer warns of every shape that becomes a number.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path = os.path.join(folder, 'traced.onnx')
        torch.onnx.export(
            network,
            (image,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=['image'],
            output_names=[*output_names],
            dynamic_axes={'image': {i: names[i] for i in free}},
        )
        model = onnx.load(path)
        for output in model.graph.output:
            # They are the traced ones; onnxruntime infers what is fixed.
            for dim in output.type.tensor_type.shape.dim:
                dim.Clear()
        options.optimized_model_filepath = path
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=['CPUExecutionProvider'],
        )
        model = onnx.load(path)
    kept = [o for o in model.opset_import if not o.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.producer_name, model.producer_version = METADATA, __version__
    set_metadata(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def _softplus(g, x, beta, threshold):
    """Write ``max(x, log(exp(min(x, 30)) + 1))``, the same in float32.

    onnxruntime computes its Softplus slowly; OpenVINO has no fast logarithm,
    but knows this one for a Softplus. Beyond 30 nothing is left of the 1.
    """
    most, one = (
        g.op('Constant', value_t=torch.tensor(value)) for value in (30.0, 1.0)
    )
    power = g.op('Exp', g.op('Min', x, most))
    return g.op('Max', x, g.op('Log', g.op('Add', power, one)))


def _unflatten(g, x, dim, sizes):
    """Write a Reshape; torch's own has free sides inferred as the traced."""
    rank = symbolic_helper._get_tensor_rank(x)
    dim = symbolic_helper._get_const(dim, 'i', 'dim') % rank
    shape = g.op('Shape', x)
    parts = [
        g.op('Gather', shape, g.op('Constant', value_t=torch.tensor([i])))
        for i in range(rank)
    ]
    parts[dim] = sizes
    return g.op('Reshape', x, g.op('Concat', *parts, axis_i=0))


def set_metadata(model: onnx.ModelProto, metadata: dict) -> None:
    """Write what a runtime has to know into a model, in place."""
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA: json.dumps(metadata)})

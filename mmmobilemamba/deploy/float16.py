"""Smaller numbers in an exported network: fp16, for GPUs."""

import os

import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from ..checkpoints.atomic import atomic_write
from .graph import set_metadata
from .images import random_image
from .int8 import load_float, nodes_of_scan, sizes
from .parity import relative_error
from .session import Session

FP16_TOLERANCE = 2e-2


def to_float16(src: str | os.PathLike, out: str | os.PathLike) -> str:
    """Convert an exported network to fp16, for runtimes on GPUs.

    Inputs and outputs keep their types; the scan and what chooses boxes are
    computed in float32. The file is compared with the one it came from on the
    CPU, which says nothing of its speed on a GPU.
    Returns how far its outputs are off, and raises ValueError where too far.
    """
    session = load_float(src, out)
    about = session.metadata
    model = onnx.load(src)
    model = convert_float_to_float16(
        model, keep_io_types=True, node_block_list=nodes_of_scan(model)
    )
    model = _join_casts(model)
    set_metadata(model, dict(about, precision='float16'))
    onnx.checker.check_model(model)
    size = tuple(about['size'] or about['traced_size'])
    image = random_image(about, size, seed=0).numpy()
    with atomic_write(out) as draft:
        onnx.save(model, draft)
        got = Session(draft)(image)
        # Boxes at a threshold come and go with the last digits.
        text = "not compared, as a detector's boxes differ at thresholds"
        if about['kind'] != 'detector':
            wanted = session(image)
            error = max(relative_error(got[k], wanted[k]) for k in wanted)
            if error > FP16_TOLERANCE:
                raise ValueError(
                    f'In fp16 {src} differs by {error:.1e} of its largest '
                    f'value, more than {FP16_TOLERANCE}; no file was written.'
                )
            text = f'{error:.1e}'
        return f'{sizes(src, draft)}\nrelative error: {text}'


def _join_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave in float32 what goes from one float32 node to the next; the
    converter casts it to float16, where exponentials overflow, and back."""
    nodes, source = {}, {}
    for node in model.graph.node:
        nodes.setdefault(tuple(node.output), node)
        if node.op_type == 'Cast':
            source[node.output[0]] = (node.input[0], node.attribute[0].i)
    for node in nodes.values():
        for i, name in enumerate(node.input):
            half, up = source.get(name, (None, None))
            full, down = source.get(half, (None, None))
            if (up, down) == (TensorProto.FLOAT, TensorProto.FLOAT16):
                node.input[i] = full
    del model.graph.node[:]
    model.graph.node.extend(nodes.values())
    wrapped = OnnxModel(model)
    wrapped.prune_graph()
    wrapped.topological_sort()
    return wrapped.model

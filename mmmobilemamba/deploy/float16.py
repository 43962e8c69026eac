"""Smaller numbers in an exported network: fp16, for GPUs."""

import os

import onnx
from onnxruntime.transformers.onnx_model import OnnxModel

from ..checkpoints.atomic import atomic_write
from .graph import set_metadata
from .images import random_image
from .int8 import load_float, nodes_of_scan, sizes
from .networks import relative_error
from .session import Session

FP16_TOLERANCE = 2e-2


def to_float16(src: str | os.PathLike, out: str | os.PathLike) -> str:
    """Convert an exported network to fp16, for runtimes on GPUs.

    Inputs and outputs keep their types; the scan and what chooses boxes are
    computed in float32. The file is compared with the one it came from on the
    CPU, which says nothing of its speed on a GPU.
    Returns how far its outputs are off, and raises ValueError where too far.
    """
    session = load_float(src)
    about = session.metadata
    if about['size'] is None:
        raise ValueError(f'{src} is of free size; fp16 is of a fixed one.')
    wrapped = OnnxModel(onnx.load(src))
    wrapped.convert_float_to_float16(
        use_symbolic_shape_infer=False,
        keep_io_types=True,
        node_block_list=nodes_of_scan(wrapped.model),
    )
    model = wrapped.model
    # A value that several nodes read in float32 is cast once for each.
    nodes = {tuple(node.output): node for node in model.graph.node}
    del model.graph.node[:]
    model.graph.node.extend(nodes.values())
    wrapped.topological_sort()
    set_metadata(model, dict(about, precision='float16'))
    onnx.checker.check_model(model)
    image = random_image(about, tuple(about['traced_size']), seed=0).numpy()
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

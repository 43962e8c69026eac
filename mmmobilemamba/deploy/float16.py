"""Smaller numbers in an exported network: fp16, for GPUs."""

import os
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.transformers.float16 import (
    DEFAULT_OP_BLOCK_LIST,
    convert_float_to_float16,
)
from onnxruntime.transformers.onnx_model import OnnxModel

from ..checkpoints.atomic import atomic_write
from .graph import set_metadata
from .options import ExportOptions
from .parity import relative_error
from .pictures import random_image
from .precision import Change, load_float, nodes_of_scan
from .session import Session

FP16_TOLERANCE = 2e-2


def to_float16(src: str | os.PathLike, out: str | os.PathLike) -> Change:
    """Convert an exported network to fp16, for runtimes on GPUs.

    Inputs and outputs keep their types; the scan and what chooses boxes are
    computed in float32. The file is compared with the one it came from on the
    CPU, which says nothing of its speed on a GPU.

    Args:
        src (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        out (str or PathLike): File to write, whole or not at all.

    Returns:
        Change: What was written.

    Raises:
        FileNotFoundError: The network does not exist.
        ValueError: It is no float32 network of this package, or it computes
            something else in fp16.
    """
    session = load_float(src, out)
    metadata = session.metadata
    model = onnx.load(src)
    model = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, 'Scan'],
        node_block_list=nodes_of_scan(model),
    )
    model = _join_casts(model)
    set_metadata(model, dict(metadata, precision='float16'))
    onnx.checker.check_model(model)
    with atomic_write(out) as draft:
        onnx.save(model, draft)
        size = tuple(metadata['size'] or metadata['traced_size'])
        options = ExportOptions(
            batch=metadata['batch'] or 1, preprocess=metadata['preprocess']
        )
        image = random_image(options, size, seed=0).numpy()
        error = None
        # Boxes at a threshold come and go with the last digits.
        if metadata['kind'] != 'detector':
            error = _error(session(image), Session(draft)(image))
            if error > FP16_TOLERANCE:
                raise ValueError(
                    f'In fp16 {src} differs by {error:.1e} of its largest '
                    f'value, more than {FP16_TOLERANCE}; no file was written.'
                )
        else:
            Session(draft)(image)
        sizes = (Path(src).stat().st_size, draft.stat().st_size)
    return Change(Path(out), tuple(size / 1e6 for size in sizes), error=error)


def _join_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave in float32 what goes from one float32 node to the next.

    The converter casts the output of each such node to float16 and back for
    every node that reads it, under one name.
    """
    down, up = {}, {}
    for node in model.graph.node:
        if node.op_type == 'Cast':
            (source,), (out,) = node.input, node.output
            if node.name == f'{source}_cast_to_fp32_node':
                up[out] = source
            elif node.name == f'{out}_cast_to_fp16_node':
                down[out] = source
    seen, nodes = set(), []
    for node in model.graph.node:
        if tuple(node.output) in seen:
            continue
        seen.add(tuple(node.output))
        for i, name in enumerate(node.input):
            if up.get(name) in down:
                node.input[i] = down[up[name]]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    wrapped = OnnxModel(model)
    wrapped.prune_graph()
    wrapped.topological_sort()
    return wrapped.model


def _error(before, after) -> float:
    if 'labels' in before:
        return float(np.mean(before['labels'] != after['labels']))
    return max(relative_error(after[key], before[key]) for key in before)

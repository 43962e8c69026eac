"""Smaller numbers in an exported network: int8, for CPUs."""

import os
import statistics
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from mmengine.logging import print_log
from mmengine.utils import track_iter_progress
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_static,
)

from ..checkpoints.atomic import atomic_write
from .graph import set_metadata
from .images import read_images
from .session import Session

# In the names of nodes of the scan; "ss2d_1" is that of another stage.
SCAN = '/ss2d'
METHODS = {method.name.lower(): method for method in CalibrationMethod}


class _Images(CalibrationDataReader):
    """Feed images to onnxruntime's calibration, and show how far it is."""

    def __init__(self, images: list[np.ndarray]):
        self.left = track_iter_progress(images, file=sys.stderr)

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {'image': image}


def quantize(
    src: str | os.PathLike,
    out: str | os.PathLike,
    folder: str | os.PathLike,
    count: int = 64,
    method: str = 'minmax',
    measure: Callable[[Path], tuple[str, float]] | None = None,
    max_loss: float = 1.0,
    threads: int | None = None,
) -> str:
    """Quantise an exported network to int8 by calibration.

    Convolutions and fully connected layers get unsigned weights of 8 bits,
    with a scale and a zero point per channel. The scan, the norms, what
    chooses boxes and the depthwise filters of the residual stream stay float.

    Args:
        src (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        out (str or PathLike): File to write, whole or not at all.
        folder (str or PathLike): Folder of images to calibrate on, or of
            such folders, as one per class.
        count (int): Images to take, evenly. Defaults to 64.
        method (str): ``'minmax'``, ``'percentile'`` or ``'entropy'``.
            Defaults to ``'minmax'``.
        measure (Callable, optional): Gives a file's metric, name and points.
            Defaults to None, which measures none.
        max_loss (float): Points that the metric may lose. Defaults to 1.
        threads (int, optional): Threads of the timing. Defaults to None.

    Returns:
        str: What it costs; ValueError where the metric loses more.
    """
    session = load_float(src, threads)
    about, model = session.metadata, onnx.load(src)
    images = [x.numpy() for _, x in read_images(folder, count, about)]
    if measure:
        print_log('Evaluating the float network', logger='current')
        name, before = measure(Path(src))
    with atomic_write(out) as draft:
        quantize_static(
            Path(src),
            draft,
            _Images(images),
            op_types_to_quantize=['Conv', 'Gemm'],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            # Of signed ones the sums of two products overflow on processors
            # without VNNI unless they have 7 bits, which costs accuracy.
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=nodes_of_scan(model) + _residual_filters(model),
            calibrate_method=METHODS[method],
        )
        model = onnx.load(draft)
        set_metadata(model, dict(about, precision='int8'))
        onnx.save(model, draft)
        report = [sizes(src, draft)]
        if measure:
            print_log('Evaluating the int8 network', logger='current')
            after = measure(draft)[1]
            report.append(f'{name}: {before:.2f} -> {after:.2f} points')
            if before - after > max_loss:
                raise ValueError(
                    f'{name} falls from {before:.2f} to {after:.2f}, by more '
                    f'than {max_loss} points, so that no file was written; '
                    'try more images or another --method, or allow it by '
                    '--max-loss.'
                )
        pair = (session, Session(draft, threads=threads))
        first, second = (_latency(network, images[0]) for network in pair)
        report.append(f'latency: {first:.1f} -> {second:.1f} ms')
    return '\n'.join(report)


def load_float(src: str | os.PathLike, threads: int | None = None) -> Session:
    """Load a network to convert; refuse one that is no float32 network."""
    session = Session(src, threads=threads)
    precision = session.metadata['precision']
    if precision != 'float32':
        raise ValueError(f'{src} is {precision} already.')
    return session


def sizes(*paths: str | os.PathLike) -> str:
    """Say how large a file is before and after."""
    before, after = (Path(path).stat().st_size / 1e6 for path in paths)
    return f'size: {before:.1f} -> {after:.1f} MB'


def nodes_of_scan(model: onnx.ModelProto) -> list[str]:
    """Name the operators of the scan, convolutions left out."""
    nodes = (node for node in model.graph.node if node.op_type != 'Conv')
    return [node.name for node in nodes if SCAN in node.name]


def _residual_filters(model: onnx.ModelProto) -> list[str]:
    """Name the depthwise convolutions that read a sum.

    Their shortcut is folded into them, so that with their input the whole
    residual stream would be rounded. Others read what is rounded already;
    onnxruntime would quantise their weights itself, with one scale for all.
    """
    nodes = model.graph.node
    sums = {node.output[0] for node in nodes if node.op_type == 'Add'}
    return [
        node.name
        for node in nodes
        if node.op_type == 'Conv'
        and node.input[0] in sums
        and any(a.name == 'group' and a.i > 1 for a in node.attribute)
    ]


def _latency(session: Session, image: np.ndarray) -> float:
    """Return the median of ten runs in milliseconds."""
    session(image)
    times = timeit.repeat(lambda: session(image), number=1, repeat=10)
    return statistics.median(times) * 1e3

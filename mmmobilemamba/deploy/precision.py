"""Smaller numbers in an exported network: int8, for CPUs."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ..analysis.timing import time_interleaved
from ..apis.inference import find_images, read_image
from ..checkpoints.atomic import atomic_write
from .graph import set_metadata
from .pictures import picture_as_input
from .session import Session

# Nodes of the scan carry the name of its module.
SCAN = '/ss2d/'
METHODS = dict(
    minmax=CalibrationMethod.MinMax,
    percentile=CalibrationMethod.Percentile,
    entropy=CalibrationMethod.Entropy,
)


@dataclass
class Change:
    """What smaller numbers changed.

    Args:
        path (Path): File that was written.
        size_mb (tuple[float]): Size before and after, 10^6 bytes.
        latency_ms (tuple[float], optional): Median milliseconds of a picture
            before and after. Defaults to None.
        metric (tuple, optional): Name, and points before and after.
            Defaults to None.
        error (float, optional): Largest relative error. Defaults to None.
    """

    path: Path
    size_mb: tuple[float, float]
    latency_ms: tuple[float, float] | None = None
    metric: tuple[str, float, float] | None = None
    error: float | None = None

    def __str__(self) -> str:
        lines = [f'size: {self.size_mb[0]:.1f} -> {self.size_mb[1]:.1f} MB']
        if self.latency_ms:
            before, after = self.latency_ms
            lines.append(f'latency: {before:.1f} -> {after:.1f} ms')
        if self.metric:
            name, before, after = self.metric
            lines.append(
                f'{name}: {before:.2f} -> {after:.2f} '
                f'({after - before:+.2f} points)'
            )
        if self.error is not None:
            lines.append(f'relative error: {self.error:.1e}')
        return '\n'.join([*lines, f'written: {self.path}'])


class MetricLossError(ValueError):
    """A quantised network that predicts too much worse."""


class _Pictures(CalibrationDataReader):
    """Feed pictures to onnxruntime's calibration."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.left = iter(arrays)

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {'image': image}


def read_calibration(
    folder: str | os.PathLike, metadata: dict, count: int
) -> list[np.ndarray]:
    """Read pictures as an exported network takes them.

    Args:
        folder (str or PathLike): Folder of pictures, or of such folders, as
            one per class.
        metadata (dict): The network's.
        count (int): Pictures to take, evenly from the folder.

    Returns:
        list[np.ndarray]: Batches as the network takes them.

    Raises:
        FileNotFoundError: There is no such folder, or it has no pictures.
        ValueError: Pictures cannot be read; all of them are named.
    """
    if count < 1:
        raise ValueError(f'count must be 1 or more, got {count}.')
    paths = _find_pictures(folder)
    step = max(len(paths) / count, 1)
    paths = [paths[int(i * step)] for i in range(min(count, len(paths)))]
    pixels, unreadable = [], []
    for path in paths:
        try:
            pixels.append(read_image(path))
        except ValueError:
            unreadable.append(str(path))
    if unreadable:
        raise ValueError(
            'Pictures for the calibration cannot be read: '
            f'{", ".join(unreadable)}.'
        )
    size = tuple(metadata['size'] or metadata['traced_size'])
    batch = metadata['batch'] or 1
    return [
        picture_as_input(image, size, metadata, batch).numpy()
        for image in pixels
    ]


def _find_pictures(folder: str | os.PathLike) -> list[Path]:
    try:
        return find_images(folder)
    except FileNotFoundError:
        paths = []
        for inner in sorted(Path(folder).glob('*/')):
            with suppress(FileNotFoundError):
                paths += find_images(inner)
        if not paths:
            raise
        return paths


def quantize(
    src: str | os.PathLike,
    out: str | os.PathLike,
    folder: str | os.PathLike,
    count: int = 64,
    method: str = 'minmax',
    measure: Callable[[Path], tuple[str, float]] | None = None,
    max_loss: float = 1.0,
    threads: int | None = None,
) -> Change:
    """Quantise an exported network to int8 by calibration.

    Convolutions and fully connected layers get unsigned weights of 8 bits,
    with a scale and a zero point per channel. The scan, the norms, what
    chooses boxes and the depthwise filters of the residual stream stay float.

    Args:
        src (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        out (str or PathLike): File to write, whole or not at all.
        folder (str or PathLike): Folder of pictures to calibrate on.
        count (int): Pictures to take from it. Defaults to 64.
        method (str): ``'minmax'``, ``'percentile'`` or ``'entropy'``.
            Defaults to ``'minmax'``.
        measure (Callable, optional): Gives a file's metric, name and points.
            Defaults to None, which measures none.
        max_loss (float): Points that the metric may lose. Defaults to 1.
        threads (int, optional): Threads of the timing. Defaults to None.

    Returns:
        Change: What was written, and what it costs.

    Raises:
        FileNotFoundError: The network or the pictures do not exist.
        ValueError: An argument or a picture is at fault.
        MetricLossError: The metric loses more than ``max_loss``.
    """
    if method not in METHODS:
        raise ValueError(
            f'method must be one of {tuple(METHODS)}, got {method!r}.'
        )
    session = load_float(src, out, threads)
    metadata = session.metadata
    images = read_calibration(folder, metadata, count)
    before = measure(Path(src)) if measure else None
    with atomic_write(out) as draft:
        _quantize(Path(src), draft, images, METHODS[method], metadata)
        metric = None
        if before:
            name, after = measure(draft)
            metric = (name, before[1], after)
            if before[1] - after > max_loss:
                raise MetricLossError(
                    f'{name} falls from {before[1]:.2f} to {after:.2f}, by '
                    f'more than {max_loss} points, so that no file was '
                    'written; try more pictures or another --method, or '
                    'allow it by --max-loss.'
                )
        latency = _latency(session, Session(draft, threads=threads), images[0])
        sizes = (Path(src).stat().st_size, draft.stat().st_size)
    return Change(
        Path(out), tuple(size / 1e6 for size in sizes), latency, metric
    )


def load_float(src, out, threads: int | None = None) -> Session:
    """Load a network to convert.

    Args:
        src (str or PathLike): Its file.
        out (str or PathLike): File to write.
        threads (int, optional): Threads. Defaults to None, the runtime's
            choice.

    Returns:
        Session: The network.

    Raises:
        FileNotFoundError: The network does not exist.
        ValueError: It is no float32 network of this package, or ``out`` is
            no name for one.
    """
    if not str(out).endswith('.onnx'):
        raise ValueError(f'out must end in .onnx, got {out}.')
    session = Session(src, threads=threads)
    precision = session.metadata['precision']
    if precision != 'float32':
        raise ValueError(f'{src} is {precision} already.')
    return session


def _residual_filters(model: onnx.ModelProto) -> list[str]:
    """Name the depthwise convolutions that read a sum.

    Their shortcut is folded into them, so that with their input the whole
    residual stream would be rounded. Others read what is rounded already;
    onnxruntime would quantise their weights itself, with one scale for all.
    """
    sums = {
        name
        for node in model.graph.node
        if node.op_type == 'Add'
        for name in node.output
    }
    return [
        node.name
        for node in model.graph.node
        if node.op_type == 'Conv'
        and node.input[0] in sums
        and any(a.name == 'group' and a.i > 1 for a in node.attribute)
    ]


def nodes_of_scan(model: onnx.ModelProto) -> list[str]:
    """Name the operators of the scan, convolutions left out."""
    return [
        node.name
        for node in model.graph.node
        if SCAN in node.name and node.op_type != 'Conv'
    ]


def _quantize(src: Path, out: Path, images, method, metadata: dict) -> None:
    model = onnx.load(src)
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises on a step that is done
    try:
        quantize_static(
            src,
            out,
            _Pictures(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv', 'Gemm'],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            # Of signed ones the sums of two products overflow on processors
            # without VNNI unless they have 7 bits, which costs accuracy.
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=nodes_of_scan(model) + _residual_filters(model),
            calibrate_method=method,
        )
    finally:
        logger.setLevel(level)
    model = onnx.load(out)
    set_metadata(model, dict(metadata, precision='int8'))
    onnx.checker.check_model(model)
    onnx.save(model, out)


def _latency(first: Session, second: Session, image) -> tuple[float, float]:
    timings = time_interleaved(
        {'before': lambda: first(image), 'after': lambda: second(image)},
        rounds=10,
    )
    return tuple(timings[name].median * 1e3 for name in ('before', 'after'))

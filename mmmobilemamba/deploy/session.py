"""Running an exported file, in onnxruntime or OpenVINO."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from . import METADATA, RUNTIMES

Runner = Callable[[np.ndarray], Sequence[np.ndarray]]


class Session:
    """An exported network, ready to run.

    Args:
        path (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        runtime (str): ``'onnxruntime'`` or ``'openvino'``. Defaults to
            ``'onnxruntime'``.
        threads (int, optional): Threads of an operator. Defaults to None,
            the runtime's choice.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no exported network of this package, or the
            runtime is unknown.
        ImportError: OpenVINO is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        runtime: str = 'onnxruntime',
        threads: int | None = None,
    ):
        if runtime not in RUNTIMES:
            raise ValueError(
                f'runtime must be one of {RUNTIMES}, got {runtime!r}.'
            )
        graph, self.metadata = read_exported(path)
        self.dtype = helper.tensor_dtype_to_np_dtype(
            graph.input[0].type.tensor_type.elem_type
        )
        self.output_names = [out.name for out in graph.output]
        load = dict(openvino=_openvino, onnxruntime=_onnxruntime)[runtime]
        self._run = load(path, threads)

    def __call__(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run the network.

        Takes images (batch, channels, H, W), uint8 pixels where the
        preprocessing is inside, and gives the outputs by name; raises
        ValueError for another shape than the network takes.
        """
        about, shape = self.metadata, image.shape
        size = about['size'] or (None, None)
        taken = (about['batch'], about.get('channels'), *size)
        pixels = shape[2] * shape[3]
        if (
            any(n not in (None, m) for n, m in zip(taken, shape, strict=True))
            or min(shape[2:]) < about['min_size']
            or pixels > (about.get('max_pixels') or math.inf)
        ):
            raise ValueError(
                f'The network does not take images {_by(shape)}; it was '
                f'exported for {_by(taken)} (batch, channels, height, width), '
                f'sides from {about["min_size"]} on and '
                f'{about.get("max_pixels") or "any number of"} pixels at most.'
            )
        values = self._run(np.ascontiguousarray(image, self.dtype))
        return dict(zip(self.output_names, values, strict=True))


def _by(shape: Sequence[int | None]) -> str:
    return 'x'.join('any' if n is None else str(n) for n in shape)


def read_exported(path: str | os.PathLike) -> tuple[onnx.GraphProto, dict]:
    """Read the graph and the metadata of an exported network.

    Raises FileNotFoundError or ValueError where it is none of this package.
    """
    try:
        model = onnx.load(path)
    except OSError:
        raise
    except Exception as error:
        # protobuf's types of error differ from version to version.
        raise ValueError(f'{path} is no model that onnx reads.') from error
    stored = {prop.key: prop.value for prop in model.metadata_props}
    if METADATA not in stored:
        raise ValueError(
            f'{path} was not written by tools/deploy/export_onnx.py: it '
            f'has no {METADATA!r} among its metadata.'
        )
    return model.graph, json.loads(stored[METADATA])


def _onnxruntime(path: str | os.PathLike, threads: int | None) -> Runner:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(
        path, options, providers=['CPUExecutionProvider']
    )
    return lambda image: session.run(None, {'image': image})


def _openvino(path: str | os.PathLike, threads: int | None) -> Runner:
    import openvino

    # float32 where the processor could compute in bfloat16 too
    options = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT='f32')
    if threads is not None:
        options['INFERENCE_NUM_THREADS'] = threads
    model = openvino.Core().compile_model(path, 'CPU', options)
    return lambda image: model([image], share_inputs=True).to_tuple()

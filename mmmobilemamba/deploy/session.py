"""Running an exported file, in onnxruntime or OpenVINO."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
        ValueError: The file is no exported network of this package, the
            runtime is unknown, or there is less than one thread.
        ImportError: OpenVINO is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        runtime: str = 'onnxruntime',
        threads: int | None = None,
    ):
        self.path = Path(path)
        if runtime not in RUNTIMES:
            raise ValueError(
                f'runtime must be one of {RUNTIMES}, got {runtime!r}.'
            )
        if threads is not None and threads < 1:
            raise ValueError(f'threads must be 1 or more, got {threads}.')
        graph, self.metadata = read_exported(self.path)
        (image,) = graph.input
        self.dtype = helper.tensor_dtype_to_np_dtype(
            image.type.tensor_type.elem_type
        )
        self.output_names = [out.name for out in graph.output]
        if runtime == 'openvino':
            self._run = _openvino(self.path, threads)
        else:
            self._run = _onnxruntime(self.path, threads)

    def __call__(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run the network.

        Takes images (batch, channels, H, W), uint8 pixels where the
        preprocessing is inside, and gives the outputs by name.
        """
        _check_shape(self.metadata, image.shape)
        values = self._run(np.ascontiguousarray(image, self.dtype))
        return dict(zip(self.output_names, values, strict=True))


def _check_shape(about: dict, shape: tuple[int, ...]) -> None:
    """Refuse images of a shape that an exported network does not take."""
    batch, channels, *size = shape
    taken, most = about['size'] or size, about.get('max_pixels')
    least = about['min_size']
    why = None
    if channels != about.get('channels', channels):
        why = f'it takes {about["channels"]} channels'
    elif size != taken:
        why = f'it was exported for {taken[0]}x{taken[1]}, no --dynamic-size'
    elif min(size) < least:
        why = f'it takes {least}x{least} and larger'
    elif most and size[0] * size[1] > most:
        why = f'it takes {most} pixels at most'
    elif about['batch'] and batch != about['batch']:
        why = 'it was exported without --dynamic-batch'
    if why:
        raise ValueError(
            f'The network does not take {batch} image(s) of {channels} '
            f'channels and {size[0]}x{size[1]} pixels: {why}.'
        )


def read_exported(path: str | os.PathLike) -> tuple[onnx.GraphProto, dict]:
    """Read the graph and the metadata of an exported network.

    Raises FileNotFoundError or ValueError where it is none of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'Model {path} does not exist.')
    try:
        model = onnx.load(path)
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


def _onnxruntime(path: Path, threads: int | None) -> Runner:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=['CPUExecutionProvider']
        )
    except Exception as error:
        # onnxruntime raises types of its own that share no base.
        raise _unloadable(path, 'onnxruntime', error) from error
    return lambda image: session.run(None, {'image': image})


def _openvino(path: Path, threads: int | None) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "runtime 'openvino' is not installed; run `pip install openvino`."
        ) from error
    # float32 where the processor could compute in bfloat16 too
    options = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT='f32')
    if threads is not None:
        options['INFERENCE_NUM_THREADS'] = threads
    try:
        model = openvino.Core().compile_model(path, 'CPU', options)
    except RuntimeError as error:
        raise _unloadable(path, 'OpenVINO', error) from error
    return lambda image: model([image], share_inputs=True).to_tuple()


def _unloadable(path: Path, runtime: str, error: Exception) -> ValueError:
    reason = str(error).strip().partition('\n')[0]
    return ValueError(f'{path} is no model that {runtime} loads: {reason}')

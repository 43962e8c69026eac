"""Running an exported file, in onnxruntime or OpenVINO."""

import json
import os
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from . import METADATA


class ExportedFileError(ValueError):
    """A file cannot be run, or not on images of this shape."""


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
        ExportedFileError: The file is no exported network of this package, or
            the runtime cannot load it.
        ImportError: OpenVINO is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        runtime: str = 'onnxruntime',
        threads: int | None = None,
    ):
        graph, self.metadata = read_exported(path)
        inside = self.metadata.get('preprocess')
        self.dtype = np.dtype(np.uint8 if inside else np.float32)
        self.output_names = [out.name for out in graph.output]
        load = _load_openvino if runtime == 'openvino' else _load_onnxruntime
        try:
            self._run = load(path, threads)
        except ImportError:
            raise
        except Exception as error:  # the runtimes have types of their own
            text = f'{runtime} cannot load {path}: {error}'
            raise ExportedFileError(text) from error

    def __call__(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run the network.

        Takes images (batch, channels, H, W), uint8 pixels where the
        preprocessing is inside, and gives the outputs by name; raises
        ExportedFileError for other images than the network was exported for.
        """
        about, (height, width) = self.metadata, image.shape[2:]
        size, limits = about['size'] or (None, None), ''
        wanted = (about['batch'], about['channels'], *size)
        fits = all(m in (n, None) for m, n in zip(wanted, image.shape))
        if most := about.get('max_pixels'):  # of a free size
            least = about['min_size']
            limits = f', sides from {least}, {most} pixels at most'
            fits &= min(height, width) >= least and height * width <= most
        if not fits:
            raise ExportedFileError(
                f'{image.shape} is no (batch, channels, height, width) that '
                f'the network was exported for: {wanted}, None for any{limits}'
            )
        values = self._run(np.ascontiguousarray(image, self.dtype))
        return dict(zip(self.output_names, values, strict=True))


def _load_onnxruntime(path: str, threads: int | None) -> Callable:
    """Return what maps an image to the values of the outputs, in order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(
        path, options, providers=['CPUExecutionProvider']
    )
    return lambda x: session.run(None, {'image': x})


def _load_openvino(path: str, threads: int | None) -> Callable:
    """Return the same, run by OpenVINO."""
    import openvino

    # float32 where the processor could compute in bfloat16 too
    options = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT='f32')
    if threads is not None:
        options['INFERENCE_NUM_THREADS'] = threads
    model = openvino.Core().compile_model(path, 'CPU', options)
    return lambda x: model([x], share_inputs=True).to_tuple()


def read_exported(path: str | os.PathLike) -> tuple[onnx.GraphProto, dict]:
    """Read the graph and the metadata of an exported network.

    Raises FileNotFoundError or ExportedFileError where it is none of ours.
    """
    try:
        model = onnx.load(path)
        stored = {prop.key: prop.value for prop in model.metadata_props}
        return model.graph, json.loads(stored[METADATA])
    except (DecodeError, KeyError, ValueError) as error:
        raise ExportedFileError(
            f'{path} is no whole file of tools/deploy/export_onnx.py, with '
            f'{METADATA!r} among its metadata: {error!r}'
        ) from error

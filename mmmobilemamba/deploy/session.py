"""Running an exported file, in onnxruntime or OpenVINO."""

import json
import os
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime

from . import METADATA


class ImageSizeError(ValueError):
    """An exported network holds for images of other sizes."""


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
        ValueError: The file is no exported network of this package.
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
        if runtime == 'openvino':
            import openvino

            # float32 where the processor could compute in bfloat16 too
            options = dict(
                PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT='f32'
            )
            if threads is not None:
                options['INFERENCE_NUM_THREADS'] = threads
            model = openvino.Core().compile_model(path, 'CPU', options)
            self._run = lambda x: model([x], share_inputs=True).to_tuple()
        else:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = threads or 0
            session = onnxruntime.InferenceSession(
                path, options, providers=['CPUExecutionProvider']
            )
            self._run = lambda x: session.run(None, {'image': x})

    def __call__(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run the network.

        Takes images (batch, channels, H, W), uint8 pixels where the
        preprocessing is inside, and gives the outputs by name; raises
        ImageSizeError for a size that the network does not hold for.
        """
        (height, width), least = image.shape[2:], self.metadata['min_size']
        size, most = map(self.metadata.get, ('size', 'max_pixels'))
        if size and [*size] != [height, width]:
            raise ImageSizeError(
                f'The network takes images of {size[0]}x{size[1]}, got '
                f'{height}x{width}: export it with --dynamic-size.'
            )
        if most and (min(height, width) < least or height * width > most):
            raise ImageSizeError(
                f'The network takes sides of {least} or more and {most} '
                f'pixels or fewer, got {height}x{width}.'
            )
        values = self._run(np.ascontiguousarray(image, self.dtype))
        return dict(zip(self.output_names, values, strict=True))


def read_exported(path: str | os.PathLike) -> tuple[onnx.GraphProto, dict]:
    """Read the graph and the metadata of an exported network.

    Raises FileNotFoundError or ValueError where it is none of this package.
    """
    model = onnx.load(path)
    stored = {prop.key: prop.value for prop in model.metadata_props}
    if METADATA not in stored:
        raise ValueError(
            f'{path} was not written by tools/deploy/export_onnx.py: it '
            f'has no {METADATA!r} among its metadata.'
        )
    return model.graph, json.loads(stored[METADATA])

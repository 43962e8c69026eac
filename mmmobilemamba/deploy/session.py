"""Running an exported file, in onnxruntime or OpenVINO."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from .graph import METADATA

RUNTIMES = ('onnxruntime', 'openvino')


class Session:
    """An exported network, ready to run.

    Args:
        path (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        runtime (str): ``'onnxruntime'`` or ``'openvino'``. Defaults to
            ``'onnxruntime'``.
        threads (int, optional): Threads of an operator. Defaults to None,
            the runtime's choice.
        providers (list[str], optional): Execution providers of onnxruntime.
            Defaults to None, the CPU.

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
        providers: list[str] | None = None,
    ):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f'Model {path} does not exist.')
        if runtime not in RUNTIMES:
            raise ValueError(
                f'runtime must be one of {RUNTIMES}, got {runtime!r}.'
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(
                self.path,
                options,
                providers=providers or ['CPUExecutionProvider'],
            )
        except Exception as error:
            # onnxruntime raises types of its own that share no base.
            reason = str(error).partition('\n')[0]
            raise ValueError(
                f'{path} is no model that onnxruntime loads: {reason}'
            ) from error
        stored = session.get_modelmeta().custom_metadata_map
        if METADATA not in stored:
            raise ValueError(
                f'{path} was not written by tools/deploy/export_onnx.py: it '
                f'has no {METADATA!r} among its metadata.'
            )
        self.metadata = json.loads(stored[METADATA])
        (image,) = session.get_inputs()
        self.dtype = np.dtype(
            {'tensor(uint8)': 'uint8', 'tensor(float16)': 'float16'}.get(
                image.type, 'float32'
            )
        )
        self.output_names = [out.name for out in session.get_outputs()]
        if runtime == 'openvino':
            self._run = _openvino(self.path, threads)
        else:
            self._run = lambda image: session.run(None, {'image': image})

    def __call__(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run the network.

        Args:
            image (np.ndarray): Pictures (batch, channels, H, W): uint8
                pixels where the preprocessing is inside, normalised values
                otherwise.

        Returns:
            Mapping[str, np.ndarray]: Outputs by name.

        Raises:
            ValueError: The picture has a size that the file does not take.
        """
        check_size(self.metadata, image.shape)
        values = self._run(np.ascontiguousarray(image, self.dtype))
        return dict(zip(self.output_names, values, strict=True))


def check_size(metadata: dict, shape: tuple[int, ...]) -> None:
    """Refuse pictures of a shape that an exported network does not take.

    Args:
        metadata (dict): The network's.
        shape (tuple[int]): Batch, channels, height and width.

    Raises:
        ValueError: Batch or size are fixed to others, or too small.
    """
    batch, _, *size = shape
    fixed, smallest = metadata['size'], metadata['min_size']
    if fixed and list(size) != fixed:
        raise ValueError(
            f'The picture is {size[0]}x{size[1]} pixels and the network was '
            f'exported for {fixed[0]}x{fixed[1]}; export it with '
            '--dynamic-size, or resize the picture.'
        )
    if min(size) < smallest:
        raise ValueError(
            f'The picture is {size[0]}x{size[1]} pixels; the network takes '
            f'{smallest}x{smallest} and larger.'
        )
    if metadata['batch'] and batch != metadata['batch']:
        raise ValueError(
            f'A batch of {batch} pictures was given and the network was '
            f'exported for {metadata["batch"]}; export it with '
            '--dynamic-batch.'
        )


def _openvino(path: Path, threads: int | None):
    """Return a function that runs a file in OpenVINO."""
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
    model = openvino.Core().compile_model(str(path), 'CPU', options)
    return lambda image: [np.array(v) for v in model([image]).values()]

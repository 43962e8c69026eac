"""Running an exported file, in onnxruntime or OpenVINO."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from . import METADATA, RUNTIMES

_DTYPES = {
    onnx.TensorProto.UINT8: 'uint8',
    onnx.TensorProto.FLOAT16: 'float16',
    onnx.TensorProto.FLOAT: 'float32',
}
Runner = Callable[[np.ndarray], Sequence[np.ndarray]]


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
        share_threads (bool): Take onnxruntime's threads of
            :func:`set_shared_threads` in the place of own ones. Sessions of
            OpenVINO always share. Defaults to False.

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
        providers: list[str] | None = None,
        share_threads: bool = False,
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
        self.dtype = np.dtype(_DTYPES[image.type.tensor_type.elem_type])
        self.output_names = [out.name for out in graph.output]
        if runtime == 'openvino':
            self._run = _openvino(self.path, threads)
        else:
            self._run = _onnxruntime(
                self.path, threads, providers, share_threads
            )

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


def read_exported(
    path: str | os.PathLike,
) -> tuple[onnx.GraphProto, dict]:
    """Read the graph and the metadata of an exported network.

    Args:
        path (str or PathLike): File of ``tools/deploy/export_onnx.py``.

    Returns:
        tuple[GraphProto, dict]: Both.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no exported network of this package.
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


def set_shared_threads(count: int) -> None:
    """Make the threads that sessions of onnxruntime may share.

    Args:
        count (int): Threads. The process has no session yet.

    Raises:
        ImportError: onnxruntime is older than 1.23, which gives threads to
            single sessions only.
    """
    if not hasattr(onnxruntime, 'set_global_thread_pool_sizes'):
        raise ImportError(
            'onnxruntime 1.23 or later is needed for threads that networks '
            f'share, got {onnxruntime.__version__}.'
        )
    onnxruntime.set_global_thread_pool_sizes(count, 1)


def _onnxruntime(
    path: Path, threads: int | None, providers: list[str] | None, share: bool
) -> Runner:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if share:
        options.use_per_session_threads = False
    elif threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=providers or ['CPUExecutionProvider']
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

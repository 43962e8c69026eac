"""Networks that a runtime computes: exported for one size, timed apart."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..checkpoints.atomic import atomic_write
from .candidates import Candidate
from .preparation import make_pictures, prepare_module
from .requests import Form, Request

ROOT = Path(__file__).resolve().parents[1]
# What a file depends on besides the network that was asked for.
SOURCES = (
    'analysis/candidates.py',
    'analysis/exported.py',
    'analysis/fusing.py',
    'analysis/preparation.py',
    'deploy/*.py',
    'models/**/*.py',
)


def export_candidate(
    candidate: Candidate,
    request: Request,
    batch: int,
    folder: str | os.PathLike,
) -> Path:
    """Export a network with random weights for one size and batch.

    Ours and the peers go the same way: fused, norms folded, traced, and
    simplified by onnxruntime at its lowest level.

    Args:
        candidate (Candidate): Network in torch; used up.
        request (Request): What was asked for.
        batch (int): Pictures of a call.
        folder (str or PathLike): Where the file goes. One that is there from
            the same sources is taken as it is.

    Returns:
        Path: File.

    Raises:
        ValueError: The network cannot be exported.
    """
    path = Path(folder) / _file_name(request, candidate.size, batch)
    if path.exists():
        return path
    # Needs onnx and onnxruntime.
    from ..deploy import graph
    from ..deploy.modules import make_exportable

    form = request.form
    module = nn.Sequential(prepare_module(candidate, form))
    choice = dict(form=form.scan, chunk=form.chunk)
    choice = {key: value for key, value in choice.items() if value}
    make_exportable(module, fixed_size=True, **choice)
    image = make_pictures(batch, candidate.size, Form())
    file = io.BytesIO()
    opsets = {graph.DOMAIN: 1} if form.scan == 'scan' else None
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of every shape that becomes a number.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module.eval().requires_grad_(False),
            (image,),
            file,
            dynamo=False,
            opset_version=graph.MIN_OPSET,
            input_names=['image'],
            output_names=['output'],
            custom_opsets=opsets,
        )
    metadata = dict(size=list(candidate.size), batch=batch, min_size=1)
    model = graph.finish(
        graph.onnx.load_model_from_string(file.getvalue()),
        graph.MIN_OPSET,
        metadata,
    )
    with atomic_write(path) as draft:
        graph.onnx.save(model, draft)
    return path


def _file_name(request: Request, size: tuple[int, int], batch: int) -> str:
    """Return a name that changes with whatever changes the file."""
    digest = hashlib.sha256(torch.__version__.encode())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    form = request.form
    digest.update(repr((form.deploy, form.scan, form.chunk)).encode())
    name = f'{request.kind}-{request.network}-{size[0]}x{size[1]}'
    return f'{name}-b{batch}-{digest.hexdigest()[:8]}.onnx'


class RuntimeProcess:
    """A process that runs exported networks in one runtime.

    The networks share its threads. With threads of their own, those of one
    would still be waiting by counting while the next is timed, which then
    takes up to half as long again, or twice.

    Args:
        runtime (str): What runs them.
        threads (int): Threads.
    """

    def __init__(self, runtime: str, threads: int):
        self._open = ExitStack()
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory())
        self._count = 0
        module = f'{__package__}.timed_session'
        self._process = subprocess.Popen(
            [sys.executable, '-m', module, runtime, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._open.callback(self._end)

    def load(
        self, path: str | os.PathLike, image: np.ndarray
    ) -> 'TimedSession':
        """Load a network.

        Args:
            path (str or PathLike): File.
            image (np.ndarray): What it is called with.

        Returns:
            TimedSession: The network.

        Raises:
            ValueError: It does not run.
            ImportError: The runtime is not installed.
        """
        picture = Path(self._folder) / f'{self._count}.npy'
        np.save(picture, image)
        answer = self.ask(path=os.fspath(path), picture=os.fspath(picture))
        if 'missing' in answer:
            raise ImportError(answer['missing'])
        if 'error' in answer:
            raise ValueError(answer['error'])
        self._count += 1
        return TimedSession(self, self._count - 1, answer['finite'])

    def ask(self, **order) -> dict:
        """Send an order and return the answer."""
        try:
            self._process.stdin.write(json.dumps(order) + '\n')
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise ValueError(
                'the process of the runtime ended with status '
                f'{self._process.wait()}.'
            ) from None

    def _end(self) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def close(self) -> None:
        """End the process."""
        self._open.close()


@dataclass(frozen=True)
class TimedSession:
    """An exported network in the process of its runtime.

    Args:
        process (RuntimeProcess): The process.
        number (int): Which of its networks it is.
        finite (bool): Whether it gives finite values.
    """

    process: RuntimeProcess
    number: int
    finite: bool

    def timed(self, repeats: int) -> float:
        """Run it and return the mean seconds of a call.

        Args:
            repeats (int): Calls.

        Returns:
            float: Seconds.
        """
        answer = self.process.ask(network=self.number, repeats=repeats)
        return answer['seconds']

    def __call__(self) -> None:
        """Run it once."""
        self.timed(1)

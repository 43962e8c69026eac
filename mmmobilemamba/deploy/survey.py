"""Exporting many models at their real sizes, to see that all of them agree."""

import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from ..analysis.input_shapes import padded, usual_shape
from ..apis.config import load_config
from ..apis.inference import load_model
from ..checkpoints.atomic import atomic_write
from .export import export_model
from .options import ExportOptions, kind_of
from .parity import eager_outputs
from .pictures import random_image
from .trained_like import make_trained_like

# Pictures that give norms their statistics, no larger than this. On smaller
# ones the coarsest maps of a detector are single pixels, whose statistics
# multiply what differs between larger maps, roundings too.
_PICTURES, _SIDE = 8, 320
_COLUMNS = (
    ('model', '{name}'),
    ('size', '{size[0]}x{size[1]}'),
    ('relative error', '{error:.1e}'),
    ('boxes', '{boxes}'),
    ('masks', '{masks}'),
    ('ties', '{ties}'),
    ('file, MB', '{size_mb:.1f}'),
    ('operators', '{nodes}'),
    ('seconds', '{seconds:.0f}'),
    ('memory, GB', '{memory_gb:.1f}'),
)


@dataclass(frozen=True)
class Job:
    """A model to export.

    Args:
        config (str): Config file.
        size (tuple[int], optional): Height and width in pixels. Defaults to
            None, that of the config's test, of detectors 800x1344.
        checkpoint (str, optional): Checkpoint file. Defaults to None, random
            weights.
        seed (int): Seed of random weights. Defaults to 0.
        opset (int): ONNX operators. Defaults to 17.
    """

    config: str
    size: tuple[int, int] | None = None
    checkpoint: str | None = None
    seed: int = 0
    opset: int = 17

    @property
    def name(self) -> str:
        """The file name of the config without its ending."""
        return Path(self.config).stem


@dataclass(frozen=True)
class Row:
    """What the export of one model gave.

    Args:
        job (dict): The :class:`Job`.
        name (str): Name of the model.
        size (tuple[int]): Height and width in pixels.
        error (float): Largest relative error.
        boxes (int, optional): Boxes that were matched.
        masks (int, optional): Masks that were matched.
        ties (int): Boxes and proposals that are right by another outcome of
            a tie.
        size_mb (float): Size of the file in 10^6 bytes.
        nodes (int): Operators of the graph.
        seconds (float): Time of export and comparison.
        memory_gb (float): Peak memory of the process in 10^9 bytes.
    """

    job: dict
    name: str
    size: tuple[int, int]
    error: float
    boxes: int | None
    masks: int | None
    ties: int
    size_mb: float
    nodes: int
    seconds: float
    memory_gb: float


def check_export(job: Job, folder: str | os.PathLike, keep: bool) -> Row:
    """Export a model, compare it, and write down what that gave.

    Args:
        job (Job): The model.
        folder (str or PathLike): Folder that takes the result.
        keep (bool): Leave the exported network there too.

    Returns:
        Row: The result.

    Raises:
        ValueError: The model cannot be exported, or its file differs.
    """
    cfg = load_config(job.config)
    kind = kind_of(cfg)
    size = job.size or _real_size(cfg)
    torch.manual_seed(job.seed)
    model = load_model(cfg, job.checkpoint, 'cpu')
    if job.checkpoint is None:
        fill(model, kind, size, job.seed)
    options = ExportOptions(size=size, opset=job.opset)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder, prefix='.') as scratch:
        target = Path(folder if keep else scratch, f'{job.name}.onnx')
        report = export_model(model, kind, target, options)
    row = Row(
        job=asdict(job),
        name=job.name,
        size=size,
        error=max(c.error for c in report.comparisons),
        boxes=_total(report, 'boxes'),
        masks=_total(report, 'masks'),
        ties=_total(report, 'ties'),
        size_mb=report.size_mb,
        nodes=report.nodes,
        seconds=time.perf_counter() - start,
        memory_gb=_peak_memory() / 1e9,
    )
    with atomic_write(_result_of(job, folder)) as draft:
        draft.write_text(json.dumps(asdict(row), indent=2) + '\n')
    return finished(job, folder)


def _total(report, name: str) -> int | None:
    values = [getattr(c, name) for c in report.comparisons]
    return None if None in values else sum(values)


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024


def _real_size(cfg) -> tuple[int, int]:
    """Return the size of a test picture; of detectors as they are padded."""
    divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
    size = usual_shape(cfg)
    # Of COCO's pictures the usual one is 800x1333, padded to 1344.
    return (800, 1344) if size == (800, 1280) else padded(size, divisor)


def fill(
    model: nn.Module, kind: str, size: tuple[int, int], seed: int
) -> None:
    """Give a model that was just built a trained one's scale, in place.

    Args:
        model (nn.Module): Model of a host library in evaluation mode.
        kind (str): ``'classifier'``, ``'segmentor'`` or ``'detector'``.
        size (tuple[int]): Height and width of its pictures in pixels.
        seed (int): Seed of pictures and gains.
    """
    options = ExportOptions(batch=_PICTURES)
    height, width = (min(side, _SIDE) for side in size)
    image = random_image(options, (height, width), seed)
    if kind == 'detector':
        from .host_boxes import HostDetector

        run = HostDetector(model, 1, image).predict
    else:

        def run():
            return eager_outputs(model, dict(kind=kind), image)

    make_trained_like(model, run, seed)


def _result_of(job: Job, folder: str | os.PathLike) -> Path:
    return Path(folder, f'{job.name}.json')


def finished(job: Job, folder: str | os.PathLike) -> Row | None:
    """Read the result of a model that was exported before.

    Args:
        job (Job): The model.
        folder (str or PathLike): Folder with results.

    Returns:
        Row: The result, or None where there is none of the same job.
    """
    path = _result_of(job, folder)
    if not path.is_file():
        return None
    row = Row(**json.loads(path.read_text()))
    same = json.loads(json.dumps(asdict(job))) == row.job
    return row if same else None


def check_in_process(job: Job, folder: str | os.PathLike, keep: bool) -> Row:
    """Do :func:`check_export` in a process of its own.

    What one model leaves in memory is not there for the next, and a process
    that the system ends is no end of the others.

    Args:
        job (Job): The model.
        folder (str or PathLike): Folder that takes the result.
        keep (bool): Leave the exported network there too.

    Returns:
        Row: The result.

    Raises:
        ValueError: The model cannot be exported, or its file differs.
        ChildProcessError: The process was ended, as for lack of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        try:
            return pool.submit(check_export, job, folder, keep).result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f'{job.name}: the process was ended, perhaps for lack of '
                'memory.'
            ) from error


def markdown(rows: list[Row]) -> str:
    """Return results as a table.

    Args:
        rows (list[Row]): Results.

    Returns:
        str: Markdown.
    """
    titles = [title for title, _ in _COLUMNS]
    rule = ['---', *['---:'] * (len(titles) - 1)]
    cells = [
        [
            text.format(**asdict(row)).replace('None', '')
            for _, text in _COLUMNS
        ]
        for row in rows
    ]
    return ''.join(
        f'| {" | ".join(line)} |\n' for line in (titles, rule, *cells)
    )

"""Exporting a model of any of the three libraries to ONNX, with proof."""

import io
import os
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from mmengine.config import Config
from torch import nn

from ..apis.inference import load_model
from ..checkpoints.atomic import atomic_write
from . import graph
from .build import build_network, describe
from .networks import Network
from .options import ExportOptions, kind_of, with_size
from .parity import Comparison, compare
from .pictures import check_sizes, picture_as_input, random_image, read_images
from .session import Session


@dataclass
class Report:
    """What was written and how well it agrees.

    Args:
        path (Path): File.
        nodes (int): Operators of the graph.
        size_mb (float): Size of the file in 10^6 bytes.
        comparisons (list[Comparison]): One per batch of pictures.
    """

    path: Path
    nodes: int
    size_mb: float
    comparisons: list[Comparison] = field(default_factory=list)

    def __str__(self) -> str:
        return '\n'.join(
            [
                *map(str, self.comparisons),
                f'{self.path}: {self.nodes} operators, {self.size_mb:.1f} MB',
            ]
        )


class ParityError(ValueError):
    """An exported network that does not compute what its model does."""


def export_onnx(
    cfg: Config,
    checkpoint: str,
    out: str | os.PathLike,
    options: ExportOptions | None = None,
    images: str | os.PathLike | None = None,
) -> Report:
    """Export the model of a config, and prove that it computes the same.

    Args:
        cfg (Config): Config of MMDetection, MMSegmentation or MMPretrain.
        checkpoint (str): Checkpoint of its model.
        out (str or PathLike): File to write, ending in ``.onnx``; whole and
            proven, or not at all.
        options (ExportOptions, optional): How. Defaults to None, which takes
            all defaults.
        images (str or PathLike, optional): Picture, or folder of pictures,
            to compare on besides random ones. Defaults to None.

    Returns:
        Report: What was written.

    Raises:
        FileNotFoundError: The checkpoint or the pictures do not exist.
        ValueError: An option, the checkpoint or the model does not fit.
        ParityError: The file would compute something else.
    """
    options = options or ExportOptions()
    kind = 'backbone' if options.backbone else kind_of(cfg)
    options.check(kind)
    if not str(out).endswith('.onnx'):
        raise ValueError(f'out must end in .onnx, got {out}.')
    pictures = read_images(images)
    options = with_size(options, cfg, kind)
    model = load_model(cfg, checkpoint, 'cpu')
    return export_model(model, kind, out, options, pictures)


def export_model(
    model: nn.Module,
    kind: str,
    out: str | os.PathLike,
    options: ExportOptions,
    pictures: Sequence[tuple[str, np.ndarray]] = (),
) -> Report:
    """Export a model that is built and filled.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'``, ``'segmentor'`` or
            ``'detector'``.
        out (str or PathLike): File to write.
        options (ExportOptions): How; ``size`` is given.
        pictures (Sequence): Names and BGR pixels of pictures to compare on.
            Defaults to none.

    Returns:
        Report: What was written.

    Raises:
        ValueError: The model is of a kind that cannot be exported.
        ParityError: The file would compute something else.
    """
    metadata = describe(model, kind, options)
    network = build_network(model, kind, options, metadata)
    proto = graph.finish(_trace(network, options), options.opset, metadata)
    outputs = [o for o in proto.graph.output if o.name in network.output_names]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    with atomic_write(out) as draft:
        onnx.save(proto, draft)
        comparisons = _prove(model, draft, options, pictures)
        size_mb = draft.stat().st_size / 1e6
    return Report(Path(out), len(proto.graph.node), size_mb, comparisons)


def _trace(network: Network, options: ExportOptions) -> onnx.ModelProto:
    axes: dict[str, dict[int, str]] = {}
    names = ('image', *network.output_names, *network.inner_names)
    free = ({2: 'height', 3: 'width'}, *network.dynamic)
    for name, sides in zip(names, free, strict=True):
        axes[name] = {}
        if options.dynamic_batch:
            axes[name][0] = 'batch'
        for axis, label in sides.items():
            if options.dynamic_size or label.endswith('count'):
                axes[name][axis] = label
    image = random_image(options, options.size, seed=0)
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of every shape that becomes a number, and prints
        # the whole graph where it fails.
        warnings.simplefilter('ignore')
        try:
            with redirect_stdout(io.StringIO()):
                torch.onnx.export(
                    network,
                    (image,),
                    file,
                    dynamo=False,
                    opset_version=min(options.opset, graph.TRACED_OPSET),
                    input_names=['image'],
                    output_names=list(names[1:]),
                    dynamic_axes=axes,
                    custom_opsets={graph.DOMAIN: 1},
                )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).partition('\n')[0]
            raise ValueError(
                f'{type(network.model).__name__} cannot be traced: {reason}'
            ) from error
    return onnx.load_model_from_string(file.getvalue())


def _prove(
    model: nn.Module,
    path: Path,
    options: ExportOptions,
    pictures: Sequence[tuple[str, np.ndarray]],
) -> list[Comparison]:
    """Compare a written file with its model; raise where it differs."""
    session = Session(path)
    sizes = check_sizes(options)
    # A fixed size leaves one: other noise instead.
    jobs = [
        ('noise', random_image(options, sizes[i % len(sizes)], seed=i + 1))
        for i in range(3)
    ]
    for i, (name, pixels) in enumerate(pictures):
        size = sizes[i % len(sizes)]
        image = picture_as_input(pixels, size, session.metadata, options.batch)
        jobs.append((name, image))
    comparisons = [
        compare(name, model, session, image, options.tolerance)
        for name, image in jobs
    ]
    wrong = [c for c in comparisons if c.problems]
    if wrong:
        found = '\n'.join(map(str, comparisons))
        raise ParityError(
            'The exported network does not agree with its model at '
            f'{len(wrong)} of {len(comparisons)} pictures, so that no file '
            f'was written:\n{found}'
        )
    return comparisons

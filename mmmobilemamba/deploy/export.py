"""Exporting a model of any of the three libraries to ONNX, with proof."""

import os
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from torch import nn

from ..checkpoints.atomic import atomic_write
from .graph import expose, make_graph
from .images import as_input, check_sizes, random_image
from .networks import Network, Preprocess, build_network, describe
from .options import ExportOptions
from .parity import Comparison, compare


class ParityError(ValueError):
    """An exported network that does not compute what its model does."""


def export_model(
    model: nn.Module,
    kind: str,
    out: str | os.PathLike,
    options: ExportOptions,
    images: Sequence[tuple[str, np.ndarray]] = (),
) -> list[Comparison]:
    """Export a model to ONNX, and prove that it computes the same.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'``, ``'segmentor'`` or
            ``'detector'``.
        out (str or PathLike): File to write, ending in ``.onnx``; whole and
            proven, or not at all.
        options (ExportOptions): How; ``size`` is given.
        images (Sequence): Names and BGR pixels of images to compare on
            besides random ones. Defaults to none.

    Returns:
        list[Comparison]: How well it agrees, one per batch of images.

    Raises:
        ValueError: An option does not fit, or the model is of a kind that
            cannot be exported.
        ParityError: The file would compute something else.
    """
    options.check(kind, out, '.onnx')
    metadata = describe(model, kind, options)
    network = build_network(model, kind, options, metadata)
    graph = make_graph(
        network,
        random_image(options, options.size, metadata['channels'], seed=0),
        network.output_names,
        metadata,
        opset=options.opset,
        free=_free_dimensions(network, options),
        inner_names=network.inner_names,
    )
    comparisons = _prove(model, network, graph, options, metadata, images)
    with atomic_write(out) as draft:
        onnx.save(graph, draft)
    return comparisons


def _free_dimensions(
    network: Network, options: ExportOptions
) -> dict[str, dict[int, str]]:
    """Name the dimensions of input and outputs that are not fixed."""
    names = ('image', *network.output_names)
    sides = ({2: 'height', 3: 'width'}, *network.dynamic)
    free: dict[str, dict[int, str]] = {}
    for name, axes in zip(names, sides, strict=True):
        free[name] = {
            axis: label
            for axis, label in axes.items()
            if options.dynamic_size or label == 'count'
        }
        if options.dynamic_batch:
            free[name][0] = 'batch'
    return free


def _prove(
    model: nn.Module,
    network: Network,
    graph: onnx.ModelProto,
    options: ExportOptions,
    metadata: dict,
    images: Sequence[tuple[str, np.ndarray]],
) -> list[Comparison]:
    """Compare a graph with its model; raise where it differs."""
    names = [*network.output_names, *network.inner_names]
    session = onnxruntime.InferenceSession(
        expose(graph, network.inner_names).SerializeToString(),
        providers=['CPUExecutionProvider'],
    )
    sizes = check_sizes(options)
    jobs = []
    for i in range(3):  # a fixed size leaves one: other noise instead
        size = sizes[i % len(sizes)]
        noise = random_image(options, size, metadata['channels'], seed=i + 1)
        jobs.append(('noise', noise))
    about = dict(metadata, batch=options.batch)
    for i, (name, pixels) in enumerate(images):
        size = sizes[i % len(sizes)]
        jobs.append((name, as_input(pixels, size, about)))
    comparisons = []
    for name, image in jobs:
        values = session.run(names, {'image': image.numpy()})
        got = dict(zip(names, values, strict=True))
        if options.preprocess:
            image = Preprocess(**metadata['normalize'])(image)
        kind, tolerance = metadata['kind'], options.tolerance
        comparisons.append(compare(name, model, kind, got, image, tolerance))
    wrong = sum(bool(c.problems) for c in comparisons)
    if wrong:
        found = '\n'.join(map(str, comparisons))
        raise ParityError(
            f'The exported network does not agree with its model at {wrong} '
            f'of {len(comparisons)} images, so that no file was written:\n'
            f'{found}'
        )
    return comparisons

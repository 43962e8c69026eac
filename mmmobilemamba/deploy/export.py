"""Exporting a model of any of the three libraries to ONNX, with proof."""

import os
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from torch import nn

from ..checkpoints.atomic import atomic_write
from .graph import make_graph
from .images import as_input, random_image
from .networks import Network, Preprocess, build_network, describe
from .options import MIN_SIDE, ExportOptions
from .parity import Comparison, compare


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
        ValueError: The model cannot be exported, or the file would compute
            something else.
    """
    options.check(out, '.onnx')
    metadata = describe(model, kind, options)
    network = build_network(model, kind, options)
    free = [0] * options.dynamic_batch + [2, 3] * options.dynamic_size
    graph = make_graph(
        network,
        random_image(metadata, options.size, seed=0),
        network.output_names,
        metadata,
        free,
        network.inner_names,
    )
    comparisons = _prove(model, network, graph, metadata, images)
    with atomic_write(out) as draft:
        onnx.save(graph, draft)
    return comparisons


def _prove(
    model: nn.Module,
    network: Network,
    graph: onnx.ModelProto,
    metadata: dict,
    images: Sequence[tuple[str, np.ndarray]],
) -> list[Comparison]:
    """Compare a graph with its model; raise where it differs."""
    options = network.options
    names = [*network.output_names, *network.inner_names]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(graph)
    exposed.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in network.inner_names
    )
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), providers=['CPUExecutionProvider']
    )
    sizes = _check_sizes(options)
    jobs = []
    for i in range(3):  # a fixed size leaves one: other noise instead
        size = sizes[i % len(sizes)]
        noise = random_image(metadata, size, seed=i + 1)
        jobs.append(('noise', noise))
    for i, (name, pixels) in enumerate(images):
        size = sizes[i % len(sizes)]
        jobs.append((name, as_input(pixels, size, metadata)))
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
        raise ValueError(
            f'The exported network does not agree with its model at {wrong} '
            f'of {len(comparisons)} images, so that no file was written:\n'
            f'{found}'
        )
    return comparisons


def _check_sizes(options: ExportOptions) -> list[tuple[int, int]]:
    """Return three sizes, two of them odd, or the only one that is taken."""
    height, width = options.size
    if not options.dynamic_size:
        return [(height, width)]
    smaller = (
        max(height * 2 // 3, MIN_SIDE) | 1,
        max(width // 2, MIN_SIDE) | 1,
    )
    larger = (height + 13 | 1, width + height // 4 + 6)
    return [(height, width), smaller, larger]

"""Exporting a model of any of the three libraries to ONNX, with proof."""

import os

import onnx
import onnxruntime
from torch import nn

from ..checkpoints.atomic import atomic_write
from .arguments import MIN_SIDE, ExportOptions
from .graph import make_graph
from .images import random_image, read_images
from .networks import Comparison, build_network, describe

MAX_IMAGES = 8  # of a folder, that are compared


def export_model(
    model: nn.Module, kind: str, out: str | os.PathLike, options: ExportOptions
) -> list[Comparison]:
    """Export a model to ONNX, and prove that it computes the same.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'``, ``'segmentor'`` or
            ``'detector'``.
        out (str or PathLike): File to write, ending in ``.onnx``; whole and
            proven, or not at all.
        options (ExportOptions): How.

    Returns:
        list[Comparison]: How well it agrees, one per batch of images.

    Raises:
        ValueError: The model cannot be exported, or the file would compute
            something else.
    """
    metadata = describe(model, kind, options)
    height, width = options.size
    sizes = [options.size] * 3
    if options.dynamic_size:  # a smaller and a larger one, of odd sides
        smaller = (max(height * 2 // 3, MIN_SIDE), max(width // 2, MIN_SIDE))
        sizes[1] = (smaller[0] | 1, smaller[1] | 1)
        sizes[2] = (height + 13 | 1, width + height // 4 + 6)
    images = [
        ('noise', random_image(metadata, size, seed))
        for seed, size in enumerate(sizes, 1)
    ]
    if options.images:
        images += read_images(options.images, MAX_IMAGES, metadata)
    network = build_network(model, kind, options)
    traced = random_image(metadata, options.size, seed=0)
    free = [0] * options.dynamic_batch + [2, 3] * options.dynamic_size
    try:
        names = list(network(traced))
        graph = make_graph(network, traced, names, metadata, free)
    except Exception as error:  # of what the hosts' models may be, no end
        why = f'{type(error).__name__}: {error}'.partition('\n')[0]
        name = type(model).__name__
        raise ValueError(f'{name} cannot be exported: {why}') from error
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=['CPUExecutionProvider']
    )
    comparisons = []
    for name, image in images:
        values = session.run(names, {'image': image.numpy()})
        got = dict(zip(names, values, strict=True))
        size = tuple(image.shape[2:])
        result = Comparison(name, size, options.tolerance, got)
        network.compare(model, network.preprocess(image), result)
        comparisons.append(result)
    wrong = sum(bool(c.problems) for c in comparisons)
    if wrong:
        found = '\n'.join(map(str, comparisons))
        raise ValueError(
            f'The exported network does not agree with its model at {wrong} '
            f'of {len(comparisons)} images, so that no file was written:\n'
            f'{found}'
        )
    del graph.graph.output[sum(not name.startswith('_') for name in names) :]
    with atomic_write(out) as draft:
        onnx.save(graph, draft)
    return comparisons

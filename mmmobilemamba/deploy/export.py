"""Exporting a model of any of the three libraries to ONNX, with proof."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
from torch import Tensor, nn

from ..checkpoints.atomic import atomic_write
from .arguments import MIN_SIDE, ExportOptions
from .graph import make_graph
from .images import as_input, random_image
from .networks import Preprocess, build_network, describe
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
    names = [*network.output_names, *network.inner_names]
    free = [0] * options.dynamic_batch + [2, 3] * options.dynamic_size
    traced = random_image(metadata, options.size, seed=0)
    graph = make_graph(network, traced, names, metadata, free)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=['CPUExecutionProvider']
    )
    comparisons = []
    for name, image in _check_images(options, metadata, images):
        values = session.run(names, {'image': image.numpy()})
        got = dict(zip(names, values, strict=True))
        if options.preprocess:
            image = Preprocess(**metadata['normalize'])(image)
        result = compare(name, model, kind, got, image, options.tolerance)
        comparisons.append(result)
    wrong = sum(bool(c.problems) for c in comparisons)
    if wrong:
        found = '\n'.join(map(str, comparisons))
        raise ValueError(
            f'The exported network does not agree with its model at {wrong} '
            f'of {len(comparisons)} images, so that no file was written:\n'
            f'{found}'
        )
    # What is compared beyond the outputs stays within.
    del graph.graph.output[len(network.output_names) :]
    with atomic_write(out) as draft:
        onnx.save(graph, draft)
    return comparisons


def _check_images(
    options: ExportOptions,
    metadata: dict,
    images: Sequence[tuple[str, np.ndarray]],
) -> Iterator[tuple[str, Tensor]]:
    """Yield names and batches, of three sizes where the size is free."""
    height, width = options.size
    sizes = [options.size]
    if options.dynamic_size:  # a smaller and a larger one, of odd sides
        smaller = (max(height * 2 // 3, MIN_SIDE), max(width // 2, MIN_SIDE))
        sizes.append((smaller[0] | 1, smaller[1] | 1))
        sizes.append((height + 13 | 1, width + height // 4 + 6))
    for i in range(3):
        size = sizes[i % len(sizes)]
        yield 'noise', random_image(metadata, size, seed=i + 1)
    for i, (name, pixels) in enumerate(images):
        yield name, as_input(pixels, sizes[i % len(sizes)], metadata)

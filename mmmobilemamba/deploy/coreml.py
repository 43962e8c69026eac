"""Converting a model to CoreML, which runs on a Mac or an iPhone only."""

import json
import os
import tempfile
from pathlib import Path

import torch
from torch import nn

from . import METADATA
from .arguments import ExportOptions
from .images import random_image
from .networks import build_network, describe

# What coremltools has no counterpart of.
_DECOMPOSITIONS = {
    torch.ops.aten.addcmul.default: lambda x, a, b, *, value=1: (
        x + value * a * b
    ),
    torch.ops.aten.alias.default: lambda x: x,
    torch.ops.aten.__and__.Tensor: torch.logical_and,
}


def export_coreml(
    model: nn.Module, kind: str, out: str | os.PathLike, options: ExportOptions
) -> str:
    """Convert a model of MMSegmentation or MMPretrain, or a backbone.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'`` or ``'segmentor'``.
        out (str or PathLike): Package to write, ending in ``.mlpackage``;
            whole or not at all.
        options (ExportOptions): How; size and batch are fixed.

    Returns:
        str: What was written, and what is left to check on a Mac.
    """
    metadata = describe(model, kind, options)
    shape = (1, metadata['channels'], *options.size)
    if kind == 'detector':
        raise ValueError(
            'Detectors are not converted to CoreML; --backbone converts the '
            'maps of their backbone, and export_onnx.py all of them.'
        )
    if os.path.lexists(out):
        raise FileExistsError(f'{out} is there already; remove it first.')
    import coremltools as ct

    network = build_network(model, kind, options)
    image = random_image(metadata, options.size, seed=0).float()
    names = list(network(image))
    with torch.no_grad():
        traced = torch.export.export(network, (image,))
        traced = traced.run_decompositions(_DECOMPOSITIONS)
    tensor = ct.TensorType(name='image', shape=shape)
    if options.preprocess:
        tensor = ct.ImageType('image', shape=shape, color_layout='BGR')
    package = ct.convert(
        traced,
        inputs=[tensor],
        outputs=[ct.TensorType(name=n) for n in names],
        convert_to='mlprogram',
        compute_precision=ct.precision(options.precision),
        skip_model_load=True,  # nothing here could run it
    )
    package.user_defined_metadata[METADATA] = json.dumps(metadata)
    path = Path(out).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder:
        draft = Path(folder, path.name)
        package.save(str(draft))
        draft.rename(path)
    return (
        f'{out}: image {"x".join(map(str, shape))} in, '
        f'{", ".join(names)} out. Its values are not checked, '
        'as CoreML runs on a Mac only: compare there what MLModel.predict of '
        'coremltools gives with the model in PyTorch.'
    )

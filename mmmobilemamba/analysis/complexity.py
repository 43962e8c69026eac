"""Multiply-accumulates and parameters of any model, counted by mmengine."""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from math import prod
from typing import NamedTuple
from unittest.mock import patch

import torch
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn

from ..apis.input_size import input_channels
from .networks import host_of


class Complexity(NamedTuple):
    """What a forward pass in evaluation mode costs."""

    macs: int  # multiply-accumulates; most papers call them FLOPs
    params: int
    uncounted: dict[str, int]  # calls of operators that have no count
    analyzer: FlopAnalyzer  # mmengine's, for more


def count_complexity(model: nn.Module, size: Sequence[int]) -> Complexity:
    """Count MACs and parameters of a forward pass in evaluation mode.

    As MMDetection's get_flops.py does: models of the OpenMMLab libraries run
    in their tensor mode, up to the raw results of their heads, two-stage
    detectors with as many proposals as the network keeps, and masks of 100
    of them. The scan is traced in plain PyTorch wherever it would run.

    Args:
        model (nn.Module): Any module; it is left as it is.
        size (Sequence[int]): Height and width of the image.
    """
    image = torch.rand(1, input_channels(model), *size)
    model = deepcopy(model)
    for module in model.modules():
        if hasattr(module, 'backend'):
            module.backend = 'parallel'
    model.eval()  # makes what is packed of the weights anew
    if host_of(model) == 'mmdet':
        samples = detector_samples(image)
        model.forward = partial(model.forward, data_samples=samples)
    analyzer = FlopAnalyzer(model, (image,))
    analyzer.set_op_handle('aten::matmul', _matmul)
    name = 'aten::scaled_dot_product_attention'
    analyzer.set_op_handle(name, _attention)
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    # torch's own shortcut of attention is one operator without a count.
    mha, fast = torch.backends.mha, 'get_fastpath_enabled'
    with torch.no_grad(), patch.object(mha, fast, return_value=False):
        macs = int(analyzer.total())
    params = sum(p.numel() for p in model.parameters())
    return Complexity(macs, params, analyzer.unsupported_ops(), analyzer)


def detector_samples(x: Tensor) -> list:
    """Return a DetDataSample for each image (batch, channels, H, W) that no
    data set made, neither scaled nor padded."""
    from mmdet.structures import DetDataSample

    names = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    meta = dict.fromkeys(names, tuple(x.shape[2:]))
    meta['scale_factor'] = (1.0, 1.0)
    return [DetDataSample(metainfo=meta) for _ in x]


def _matmul(inputs: list, outputs: list) -> int:
    """Count a matrix product, whose arguments may be broadcast."""
    left, product = inputs[0].type().sizes(), outputs[0].type().sizes()
    return prod(product) * left[-1]


def _attention(inputs: list, outputs: list) -> int:
    """Count both products of attention, which mmengine does not know."""
    query, key, value = (part.type().sizes() for part in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

"""Multiply-accumulates and parameters of any model, counted by mmengine."""

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import prod
from unittest.mock import patch

import torch
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn

from ..ops import ENV_NAME
from .networks import host_of, input_channels


@dataclass(frozen=True)
class Complexity:
    """What a forward pass in evaluation mode costs.

    Args:
        macs (int): Multiply-accumulates; most papers call them FLOPs.
        params (int): Parameters, all of them.
        uncounted (dict[str, int]): Calls of operators that have no count.
        analyzer (FlopAnalyzer): mmengine's, for more.
    """

    macs: int
    params: int
    uncounted: dict[str, int]
    analyzer: FlopAnalyzer


def count_complexity(
    model: nn.Module, inputs: Sequence[int] | Tensor
) -> Complexity:
    """Count MACs and parameters of a forward pass in evaluation mode.

    As MMDetection's get_flops.py does: models of the OpenMMLab libraries run
    in their tensor mode, up to the raw results of their heads, two-stage
    detectors with as many proposals as the network keeps, and masks of 100
    of them. The scan is traced in plain PyTorch wherever it would run.

    Args:
        model (nn.Module): Any module; it is left as it is.
        inputs (Sequence[int] or Tensor): Height and width of an image, or
            the batch itself.
    """
    if not isinstance(inputs, Tensor):
        inputs = torch.rand(1, input_channels(model), *inputs)
    model = deepcopy(model)
    model.eval()  # by itself, as the hosts' train() returns None
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    model = model.to_empty(device='cpu') if on_meta else model.cpu()
    for module in model.modules():
        if hasattr(module, 'backend'):
            module.backend = 'parallel'
    if host_of(model) == 'mmdet':
        samples = detector_samples(inputs)
        model.forward = partial(model.forward, data_samples=samples)
    analyzer = FlopAnalyzer(model, (inputs,))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analyzer.set_op_handle(**_HANDLES)
    # torch's own shortcut of attention is one operator without a count.
    shortcut = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), patch.dict(os.environ, {ENV_NAME: 'parallel'}):
            macs = int(analyzer.total())
    finally:
        torch.backends.mha.set_fastpath_enabled(shortcut)
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


def _shape(value) -> list[int]:
    return value.type().sizes()


def _matmul(inputs: list, outputs: list) -> int:
    """Count a matrix product, whose arguments may be broadcast."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _attention(inputs: list, outputs: list) -> int:
    """Count both products of attention, which mmengine does not know."""
    query, key, value = (_shape(part) for part in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_HANDLES = {
    'aten::matmul': _matmul,
    'aten::scaled_dot_product_attention': _attention,
}

"""Convolution that takes what follows it along, and packs its weights once."""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops import (
    PackCache,
    PacksWeights,
    inference_kernels,
    infers_on_cpu,
    scan_backend,
)

# oneDNN's names of the activations.
ACTIVATIONS = {None: 'none', 'relu': 'relu', 'silu': 'swish'}
# Elements of a map from which oneDNN's depthwise convolution, which starts
# slower and then has the better kernel for dense maps, is the faster one.
LARGE_MAP = 2**18
# Padding, stride, dilation, groups.
POINTWISE = ((0, 0), (1, 1), (1, 1), 1)


def onednn_conv2d(
    x: Tensor,
    packs: PackCache,
    weight: Tensor,
    bias: Tensor | None = None,
    geometry: tuple = POINTWISE,
    act: str | None = None,
) -> Tensor:
    """Convolve by oneDNN with a weight that is packed once.

    Args:
        x (Tensor): Map (batch, in_channels, H, W), float32, on the CPU.
        packs (PackCache): Where the packed weight is kept.
        weight (Tensor): Weight as of :func:`torch.nn.functional.conv2d`.
        bias (Tensor, optional): Bias (out_channels,). Defaults to None.
        geometry (tuple): Padding, stride, dilation, each of two ints, and
            groups. Defaults to those of a 1x1 convolution.
        act (str, optional): A key of ``ACTIVATIONS``. Defaults to None.

    Returns:
        Tensor: The activated result, channels_last.
    """

    def pack(weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(
            weight.detach(), *geometry, x.shape
        )

    # A weight laid out for another size is converted at every call, slowly.
    return torch.ops.mkldnn._convolution_pointwise(
        x,
        packs.get('onednn', pack, weight, shape=x.shape),
        bias,
        *geometry,
        ACTIVATIONS[act],
        [],
        '',
    )


def activate_and_add(x: Tensor, act: str | None, add: Tensor | None) -> Tensor:
    """Activate a map by PyTorch's operators, then add another one.

    Args:
        x (Tensor): Map of any shape.
        act (str, optional): A key of ``ACTIVATIONS``.
        add (Tensor, optional): Map of the same shape.

    Returns:
        Tensor: Map of the shape of ``x``.
    """
    if act is not None:
        x = getattr(F, act)(x)
    return x if add is None else x + add


class FusedConv2d(PacksWeights, nn.Conv2d):
    """Convolution, activation and a sum in one call.

    In inference on a CPU, oneDNN runs them with a weight that is packed at
    the first call rather than at every one, or the extension's depthwise
    kernel does; the result is channels_last. Anywhere else PyTorch's
    operators compute the same.

    Args:
        *args: Arguments of :class:`torch.nn.Conv2d`.
        **kwargs: Keyword arguments of :class:`torch.nn.Conv2d`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._packs = PackCache()
        side = self.kernel_size[0]
        self._depthwise = (
            self.groups == self.in_channels == self.out_channels
            and self.kernel_size == (side, side)
            and self.padding == (side // 2, side // 2)
            and self.stride == self.dilation == (1, 1)
            and side % 2 == 1
        )
        self.backend = scan_backend()

    def _infer_depthwise(
        self, kernels: ModuleType, x: Tensor, act: str | None
    ) -> Tensor:
        weight = self._packs.get('filter', kernels.pack_depthwise, self.weight)
        bias = self.bias
        if bias is not None:
            bias = self._packs.get('bias', kernels.pack_channels, bias)
        return kernels.depthwise_conv2d(x, weight, bias, act or 'none')

    def _infer(self, x: Tensor, act: str | None) -> Tensor:
        kernels = inference_kernels(self.backend)
        # A slice of channels would first be copied for oneDNN.
        small = x.numel() < LARGE_MAP or x.stride(3) != x.shape[1]
        if self._depthwise and small and kernels is not None:
            return self._infer_depthwise(kernels, x, act)
        return onednn_conv2d(
            x,
            self._packs,
            self.weight,
            self.bias,
            (self.padding, self.stride, self.dilation, self.groups),
            act,
        )

    def forward(
        self, x: Tensor, act: str | None = None, add: Tensor | None = None
    ) -> Tensor:
        """Convolve, activate, then add.

        Args:
            x (Tensor): Map (batch, in_channels, H, W).
            act (str, optional): ``'relu'``, ``'silu'`` or None. Defaults to
                None.
            add (Tensor, optional): Added to the result, of its shape.
                Defaults to None.

        Returns:
            Tensor: Map (batch, out_channels, H / stride, W / stride).
        """
        if infers_on_cpu(x):
            y = self._infer(x, act)
            # oneDNN's own sum is slower than a pass of its own: its kernels
            # for it keep fewer results in registers.
            return y if add is None else y.add_(add)
        return activate_and_add(super().forward(x), act, add)

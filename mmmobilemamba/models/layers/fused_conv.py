"""Convolution that takes what follows it along, and packs its weights once."""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops import (
    PackCache,
    PacksWeights,
    inference_kernels,
    product_kernels,
    scan_backend,
)

# oneDNN's names of the activations.
ACTIVATIONS = {None: 'none', 'relu': 'relu', 'silu': 'swish'}
# Elements of a map from which oneDNN's depthwise convolution, which starts
# slower and then has the better kernel for dense maps, is the faster one.
LARGE_MAP = 2**18
# Input channels below which oneDNN's convolution is the faster one: its code
# is made for one number of channels, as that of a picture.
FEW_CHANNELS = 8
# Padding, stride, dilation, groups.
POINTWISE = ((0, 0), (1, 1), (1, 1), 1)


def infer_conv2d(
    x: Tensor,
    packs: PackCache,
    backend: str,
    weight: Tensor,
    bias: Tensor | None = None,
    geometry: tuple = POINTWISE,
    act: str | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """Convolve with a weight that is packed once, activate, then add.

    The extension's product runs dense convolutions, oneDNN the others, and
    all of them where the extension has no kernels for the processor.

    Args:
        x (Tensor): Map (batch, in_channels, H, W), float32, on the CPU.
        packs (PackCache): Where the packed weight is kept.
        backend (str): Backend of the scan that the layer was made with.
        weight (Tensor): Weight as of :func:`torch.nn.functional.conv2d`.
        bias (Tensor, optional): Bias (out_channels,). Defaults to None.
        geometry (tuple): Padding, stride, dilation, each of two ints, and
            groups. Defaults to those of a 1x1 convolution.
        act (str, optional): A key of ``ACTIVATIONS``. Defaults to None.
        add (Tensor, optional): Added to the result, of its shape. Defaults
            to None.

    Returns:
        Tensor: Map (batch, out_channels, out_H, out_W), channels_last.
    """
    kernels = product_kernels(backend)
    padding, stride, dilation, groups = geometry
    channels, depth, *kernel_size = weight.shape
    dense = groups == 1 and dilation == (1, 1) and depth >= FEW_CHANNELS
    if kernels is not None and dense:
        return kernels.dense_conv2d(
            x,
            *pack_product(packs, kernels, weight, bias),
            channels,
            kernel_size,
            stride,
            padding,
            act or 'none',
            add,
        )

    if torch.compiler.is_compiling():
        # The compiler packs for oneDNN by itself.
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return activate_and_add(y, act, add)

    def pack(weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(
            weight.detach(), *geometry, x.shape
        )

    # A weight laid out for another size is converted at every call, slowly.
    y = torch.ops.mkldnn._convolution_pointwise(
        x,
        packs.get('onednn', pack, weight, shape=x.shape),
        bias,
        *geometry,
        ACTIVATIONS[act],
        [],
        '',
    )
    # oneDNN's own sum is slower than a pass of its own: its kernels for it
    # keep fewer results in registers.
    return y if add is None else y.add_(add)


def pack_bias(
    packs: PackCache, kernels: ModuleType, bias: Tensor | None
) -> Tensor | None:
    """Return a bias as the extension's kernels take it, or None."""
    if bias is None:
        return None
    return packs.get('bias', kernels.pack_channels, bias)


def pack_product(
    packs: PackCache,
    kernels: ModuleType,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias as the extension's products of a map take them.

    Args:
        packs (PackCache): Where they are kept.
        kernels (ModuleType): The extension.
        weight (Tensor): Weight of the convolution.
        bias (Tensor, optional): Its bias, or None.
    """
    matrix = packs.get('matrix', kernels.pack_matrix, weight)
    return matrix, pack_bias(packs, kernels, bias)


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

    In inference on a CPU, the extension or oneDNN runs them with a weight
    that is packed at the first call rather than at every one; the result is
    channels_last. Anywhere else PyTorch's operators compute the same.

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

    def _infer(self, x: Tensor, act: str | None, add: Tensor | None) -> Tensor:
        kernels = inference_kernels(self.backend)
        # A slice of channels would first be copied for oneDNN.
        small = x.numel() < LARGE_MAP or x.stride(3) != x.shape[1]
        if self._depthwise and small and kernels is not None:
            y = kernels.depthwise_conv2d(
                x, *self.packed_filter(kernels), act or 'none'
            )
            return y if add is None else y.add_(add)
        return infer_conv2d(
            x,
            self._packs,
            self.backend,
            self.weight,
            self.bias,
            (self.padding, self.stride, self.dilation, self.groups),
            act,
            add,
        )

    def packed_filter(
        self, kernels: ModuleType
    ) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias as the extension's filters take them."""
        weight = self._packs.get('filter', kernels.pack_depthwise, self.weight)
        return weight, pack_bias(self._packs, kernels, self.bias)

    def packed(self, kernels: ModuleType) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias as :func:`pack_product` does."""
        return pack_product(self._packs, kernels, self.weight, self.bias)

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
        if self.infers_on_cpu(x):
            return self._infer(x, act, add)
        return activate_and_add(super().forward(x), act, add)

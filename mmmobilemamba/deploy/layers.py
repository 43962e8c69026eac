"""Layers of host libraries that a tracer cannot follow at every size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair


class MatrixPool(nn.Module):
    """AdaptiveAvgPool2d that ONNX holds where a size is no multiple.

    Args:
        output_size (int or tuple): As of the layer that it replaces.
        fixed_size (bool): The size of the map is known while tracing.
    """

    def __init__(self, output_size, fixed_size: bool):
        super().__init__()
        self.output_size, self.fixed_size = _pair(output_size), fixed_size

    def _weights(self, size, bins: int, like: Tensor) -> Tensor:
        """Return (bins, size): the share of every pixel in every mean."""
        if self.fixed_size:
            size = int(size)
        pixel = torch.arange(size, device=like.device)
        bin_ = torch.arange(bins, device=like.device)[:, None]
        # from floor(bin * size / bins) to below ceil((bin + 1) * size / bins)
        within = pixel >= torch.div(bin_ * size, bins, rounding_mode='trunc')
        within = within & (pixel * bins < (bin_ + 1) * size)
        within = within.to(like.dtype)
        return within / within.sum(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to (batch, channels, *output_size)."""
        rows = self._weights(x.shape[2], self.output_size[0], x)
        columns = self._weights(x.shape[3], self.output_size[1], x)
        return rows @ x @ columns.t()


class Upsample(nn.Module):
    """MMSegmentation's Upsample without numbers from the traced size.

    Args:
        layer (nn.Module): Layer with a whole scale factor.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.scale = int(layer.scale_factor)
        self.mode, self.align_corners = layer.mode, layer.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to (batch, channels, s H, s W)."""
        height, width = x.shape[2:]
        return F.interpolate(
            x,
            size=(height * self.scale, width * self.scale),
            mode=self.mode,
            align_corners=self.align_corners,
        )


def _replacement(layer: nn.Module, fixed_size: bool) -> nn.Module | None:
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        size = _pair(layer.output_size)
        # ONNX has an operator for the mean of a whole map.
        if size != (1, 1) and None not in size:
            return MatrixPool(size, fixed_size)
    # By name, as the library may be absent.
    kind = f'{type(layer).__module__}.{type(layer).__name__}'
    if kind == 'mmseg.models.utils.wrappers.Upsample':
        if layer.size is None and layer.scale_factor == int(
            layer.scale_factor
        ):
            return Upsample(layer)
    return None


def replace_layers(module: nn.Module, fixed_size: bool) -> None:
    """Replace layers that cannot be traced as they are, in place.

    Args:
        module (nn.Module): Network.
        fixed_size (bool): The size of the picture is known while tracing.
    """
    for name, child in module.named_children():
        replacement = _replacement(child, fixed_size)
        if replacement is not None:
            setattr(module, name, replacement)
        else:
            replace_layers(child, fixed_size)

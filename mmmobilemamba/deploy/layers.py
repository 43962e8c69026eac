"""Layers of host libraries that a tracer cannot follow at every size."""

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair


class MatrixPool(nn.Module):
    """AdaptiveAvgPool2d that ONNX holds where a size is no multiple."""

    def __init__(self, output_size):
        super().__init__()
        self.output_size = _pair(output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to (batch, channels, *output_size)."""
        rows = _shares(x.shape[2], self.output_size[0])
        columns = _shares(x.shape[3], self.output_size[1])
        return rows @ x @ columns.t()


def _shares(size, bins: int) -> Tensor:
    """Return (bins, size): the share of every pixel in every mean."""
    pixel, bin_ = torch.arange(size), torch.arange(bins)[:, None]
    # from floor(bin * size / bins) to below ceil((bin + 1) * size / bins)
    within = pixel >= torch.div(bin_ * size, bins, rounding_mode='trunc')
    within = within & (pixel * bins < (bin_ + 1) * size)
    within = within.float()
    return within / within.sum(1, keepdim=True)


def replace_layers(module: nn.Module) -> None:
    """Replace layers that cannot be traced as they are, in place."""
    for name, child in module.named_children():
        # By name, as the library may be absent.
        kind = f'{type(child).__module__}.{type(child).__name__}'
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = _pair(child.output_size)
            # ONNX has an operator for the mean of a whole map.
            if size != (1, 1) and None not in size:
                setattr(module, name, MatrixPool(size))
        elif kind == 'mmseg.models.utils.wrappers.Upsample':
            # It computes the size in Python, which stays the traced one.
            layer = nn.Upsample(
                child.size, child.scale_factor, child.mode, child.align_corners
            )
            setattr(module, name, layer)
        else:
            replace_layers(child)

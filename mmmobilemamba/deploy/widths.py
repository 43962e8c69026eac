"""Channels in numbers that the kernels of runtimes are made for.

Runtimes compute with 8 or 16 channels at a time, and onnxruntime falls back
to slower kernels where a convolution has an odd number of them.
"""

import torch
from torch import Tensor, nn

from ..models.backbones import MobileMamba
from ..models.layers.mixer import Mixer

MULTIPLE = 8


@torch.no_grad()
def pad_stem(backbone: MobileMamba) -> None:
    """Fill a deployed stem's inner channels with zeros, in place.

    Args:
        backbone (MobileMamba): Backbone; one that is not deployed stays.
    """
    convs = [layer.conv for layer in backbone.stem if layer.bn is None]
    for conv, following in zip(convs, convs[1:], strict=False):
        extra = -conv.out_channels % MULTIPLE
        _extend(conv, 0, extra)
        _extend(following, 1, extra)


def _extend(conv: nn.Conv2d, axis: int, extra: int) -> None:
    """Add zeros to a convolution's output (0) or input (1) channels."""
    if not extra:
        return
    shape = list(conv.weight.shape)
    shape[axis] = extra
    zeros = conv.weight.new_zeros(shape)
    conv.weight = nn.Parameter(torch.cat((conv.weight, zeros), axis))
    if axis:
        conv.in_channels += extra
        return
    conv.bias = nn.Parameter(torch.cat((conv.bias, zeros[:, 0, 0, 0])))
    conv.out_channels += extra


class ExportMixer(nn.Module):
    """Mixer whose identity channels share the convolutions of the local path.

    They pass them unchanged but for the sign, which the ReLU behind takes.

    Args:
        mixer (Mixer): Deployed mixer whose parts are taken.
    """

    def __init__(self, mixer: Mixer):
        super().__init__()
        wide, local, rest = mixer.widths
        self.widths = (wide, local + rest)
        self.global_path, self.proj = mixer.global_path, mixer.proj
        part = mixer.local_path[0]
        self.local = _with_identity(part.dw.conv, rest)
        self.scale = _with_identity(part.scale.conv, rest)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        wide, local = x.split(self.widths, dim=1)
        local = self.scale(torch.relu(self.local(local)))
        wide = self.global_path(wide)
        return self.proj(torch.relu(torch.cat((wide, local), dim=1)), add=add)


@torch.no_grad()
def _with_identity(conv: nn.Conv2d, extra: int) -> nn.Conv2d:
    """Return a depthwise convolution that leaves further channels as is."""
    channels = conv.out_channels + extra
    height, width = conv.kernel_size
    wider = nn.Conv2d(
        channels,
        channels,
        conv.kernel_size,
        padding=conv.padding,
        groups=channels,
    )
    wider.weight.zero_()
    wider.bias.zero_()
    wider.weight[:, :, height // 2, width // 2] = 1
    wider.weight[: conv.out_channels] = conv.weight
    wider.bias[: conv.out_channels] = conv.bias
    return wider


def can_share(mixer: Mixer) -> bool:
    """Tell whether :class:`ExportMixer` can take the place of a mixer.

    Args:
        mixer (Mixer): Mixer.

    Returns:
        bool: True for a deployed one with all three paths and a local path
        of one part.
    """
    wide, local, rest = mixer.widths
    return bool(
        wide
        and local
        and rest
        and len(mixer.local_path) == 1
        and mixer.local_path[0].dw.bn is None
        and mixer.local_path[0].scale.bn is None
    )

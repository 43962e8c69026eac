"""Multi-receptive-field mixer: scan, wavelet, local convolution, identity."""

import torch
from torch import Tensor, nn

from ... import ops
from .conv import ConvBN
from .ss2d import SS2D


def split_channels(
    channels: int, global_ratio: float, local_ratio: float
) -> tuple[int, int, int]:
    """Divide channels among the global, local and identity paths.

    The global share is rounded to the nearest multiple of 16, a tie upwards;
    the local one is cut to what that leaves.
    """
    wide = (int(global_ratio * channels) + 8) // 16 * 16
    if wide > channels:
        raise ValueError(
            f'global_ratio={global_ratio} of {channels} channels rounds to '
            f'{wide} (a multiple of 16), which is more than there are; take '
            'a smaller ratio or more channels.'
        )
    local = min(int(local_ratio * channels), channels - wide)
    return wide, local, channels - wide - local


class GlobalPath(nn.Module):
    """Scan and wavelet path side by side (WTE-Mamba).

    Args:
        dim (int): Channels of input and output.
        kernel_size (int): Side of the depthwise kernels on the subbands.
        wavelet_levels (int): Levels of the wavelet path; 0 leaves it out.
            Defaults to 1.
        **kwargs: ``ssm_ratio``, ``d_state`` and ``scan_directions`` of
            :class:`SS2D`.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """

    def __init__(
        self, dim: int, kernel_size: int, wavelet_levels: int = 1, **kwargs
    ):
        super().__init__()
        self.ss2d = SS2D(dim, **kwargs)
        self.base_scale = nn.Parameter(torch.ones(1, dim, 1, 1))
        bands, same = 4 * dim, kernel_size // 2
        self.wavelet_convs = nn.ModuleList(
            nn.Conv2d(
                bands, bands, kernel_size, 1, same, groups=bands, bias=False
            )
            for _ in range(wavelet_levels)
        )
        self.wavelet_scales = nn.ParameterList(
            torch.full((1, 4 * dim, 1, 1), 0.1) for _ in range(wavelet_levels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, H, W) to the same shape."""
        if not len(self.wavelet_convs):
            return self.base_scale * self.ss2d(x)
        # A factor of a filter's result is one of its weight.
        levels = zip(self.wavelet_scales, self.wavelet_convs, strict=True)
        weights = [f.transpose(0, 1) * conv.weight for f, conv in levels]
        wavelet = ops.wavelet_conv2d(x, weights, self.ss2d.backend)
        # base_scale * ss2d(x) + wavelet, in one pass over memory.
        return torch.addcmul(wavelet, self.base_scale, self.ss2d(x))


class LocalPart(nn.Module):
    """Depthwise kxk ConvBN, ReLU, depthwise 1x1 ConvBN."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        self.dw = ConvBN(channels, channels, kernel_size, groups=channels)
        self.act = nn.ReLU(inplace=True)
        self.scale = ConvBN(channels, channels, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        return self.scale(self.act(self.dw(x)))


class LocalPath(nn.ModuleList):
    """Multi-kernel depthwise convolution (MK-DeConv) on a share of channels.

    Of ``splits`` nearly equal parts, two and more take the kernels 3, 5, 7.
    """

    def __init__(self, channels: int, kernel_size: int, splits: int = 1):
        kernels = (3, 5, 7) if splits > 1 else (kernel_size,)
        self.widths = [
            channels // splits + (i < channels % splits) for i in range(splits)
        ]
        super().__init__(map(LocalPart, self.widths, kernels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        if len(self) == 1:
            return self[0](x)
        parts = zip(self, x.split(self.widths, dim=1), strict=True)
        return torch.cat([part(y) for part, y in parts], dim=1)


class Mixer(nn.Module):
    """Mix a map by channel groups: global path, local path, identity.

    Args:
        channels (int): Channels of input and output.
        global_ratio (float): Share of the global path.
        local_ratio (float): Share of the local path.
        kernel_size (int): Side of the depthwise kernels of both paths.
        local_splits (int): Parts of the local path. Defaults to 1.
        **kwargs: ``wavelet_levels``, ``ssm_ratio``, ``d_state`` and
            ``scan_directions`` of :class:`GlobalPath`.

    Source: MobileMamba (arXiv:2411.15941), section 3.2 (MRFFI).
    """

    def __init__(
        self,
        channels: int,
        global_ratio: float,
        local_ratio: float,
        kernel_size: int,
        local_splits: int = 1,
        **kwargs,
    ):
        super().__init__()
        self.widths = split_channels(channels, global_ratio, local_ratio)
        wide, local, _ = self.widths
        self.global_path = self.local_path = nn.Identity()
        if wide:
            self.global_path = GlobalPath(wide, kernel_size, **kwargs)
        if local:
            self.local_path = LocalPath(local, kernel_size, local_splits)
        self.act = nn.ReLU(inplace=True)
        self.proj = ConvBN(channels, channels, zero_init=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        wide, local, rest = x.split(self.widths, dim=1)
        y = (self.global_path(wide), self.local_path(local), rest)
        return self.proj(self.act(torch.cat(y, dim=1)))

"""Multi-receptive-field mixer: scan, wavelet, local convolution, identity."""

import torch
from torch import Tensor, nn

from ...ops import (
    PackCache,
    PacksWeights,
    inference_kernels,
)
from .conv_bn import ConvBN
from .fused_conv import FusedConv2d
from .ss2d import SS2D
from .wavelet import haar_dwt2d, haar_iwt2d

# Kernels of the local path's parts when it is split.
SPLIT_KERNELS = (3, 5, 7)


def split_channels(
    channels: int, global_ratio: float, local_ratio: float
) -> tuple[int, int, int]:
    """Divide channels among the global, local and identity paths.

    Args:
        channels (int): Channels of the mixer.
        global_ratio (float): Share of the global path, in [0, 1]; the
            result is rounded to the nearest multiple of 16, a tie upwards.
        local_ratio (float): Share of the local path, in [0, 1]; cut to what
            the global path leaves.

    Returns:
        tuple[int, int, int]: Channels of the three paths.

    Raises:
        ValueError: The rounded global share exceeds ``channels``.
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


class GlobalPath(PacksWeights, nn.Module):
    """Scan and wavelet path side by side (WTE-Mamba).

    Args:
        dim (int): Channels of input and output.
        kernel_size (int): Side of the depthwise kernels on the subbands.
        wavelet_levels (int): Levels of the wavelet path; 0 leaves it out.
            Defaults to 1.
        deploy (bool): Build the form without scales and BatchNorm. Defaults
            to False.
        **kwargs: ``ssm_ratio``, ``d_state``, ``scan_directions`` and
            ``norm_cfg`` of :class:`SS2D`.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        wavelet_levels: int = 1,
        deploy: bool = False,
        **kwargs,
    ):
        super().__init__()
        self.ss2d = SS2D(dim, deploy=deploy, **kwargs)
        self.wavelet_convs = nn.ModuleList(
            FusedConv2d(
                4 * dim,
                4 * dim,
                kernel_size,
                padding=kernel_size // 2,
                groups=4 * dim,
                bias=False,
            )
            for _ in range(wavelet_levels)
        )
        self._packs = PackCache()
        self.base_scale = self.wavelet_scales = None
        if not deploy:
            self.base_scale = nn.Parameter(torch.ones(1, dim, 1, 1))
            self.wavelet_scales = nn.ParameterList(
                torch.full((1, 4 * dim, 1, 1), 0.1)
                for _ in range(wavelet_levels)
            )

    def _wavelet(self, x: Tensor, level: int) -> Tensor:
        """Filter the subbands of ``x``, those of its low band included."""
        size = x.shape[2:]
        bands = haar_dwt2d(x)
        y = self.wavelet_convs[level](bands)
        if self.wavelet_scales is not None:
            y = y * self.wavelet_scales[level]
        if level + 1 < len(self.wavelet_convs):
            # The next level works on the low-low band before its filter.
            deeper = self._wavelet(bands[:, 0::4], level + 1)
            low, *rest = y.unflatten(1, (-1, 4)).unbind(2)
            y = torch.stack((low + deeper, *rest), dim=2).flatten(1, 2)
        return haar_iwt2d(y, size)

    def _wavelet_path(self, x: Tensor) -> Tensor:
        """Run all levels, by one kernel where it serves."""
        kernels = inference_kernels(self.ss2d.backend)
        if (
            kernels is None
            or len(self.wavelet_convs) > 1
            or self.wavelet_scales is not None
            or not self.infers_on_cpu(x)
        ):
            return self._wavelet(x, 0)
        weight = self._packs.get(
            'wavelet', kernels.pack_wavelet, self.wavelet_convs[0].weight
        )
        return kernels.wavelet_conv2d(x, weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, H, W) to the same shape."""
        wavelet = self._wavelet_path(x) if len(self.wavelet_convs) else None
        if self.base_scale is None:
            return self.ss2d(x, add=wavelet)
        y = self.ss2d(x) * self.base_scale
        return y if wavelet is None else y + wavelet

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold the scales into the convolutions next to them."""
        if self.base_scale is None:
            return
        self.ss2d.out_proj.switch_to_deploy()
        out = self.ss2d.out_proj.conv
        out.weight.mul_(self.base_scale.view(-1, 1, 1, 1))
        out.bias.mul_(self.base_scale.flatten())
        for conv, scale in zip(
            self.wavelet_convs, self.wavelet_scales, strict=True
        ):
            conv.weight.mul_(scale.view(-1, 1, 1, 1))
        self.base_scale = self.wavelet_scales = None


class LocalPart(nn.Module):
    """Depthwise kxk ConvBN, ReLU, depthwise 1x1 ConvBN.

    Args:
        channels (int): Channels of input and output.
        kernel_size (int): Side of the first kernel in pixels.
        **kwargs: ``norm_cfg`` and ``deploy`` of :class:`ConvBN`.
    """

    def __init__(self, channels: int, kernel_size: int, **kwargs):
        super().__init__()
        self.dw = ConvBN(
            channels, channels, kernel_size, groups=channels, **kwargs
        )
        self.scale = ConvBN(channels, channels, groups=channels, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        return self.scale(self.dw(x, act='relu'))


class LocalPath(nn.ModuleList):
    """Multi-kernel depthwise convolution (MK-DeConv) on a share of channels.

    Args:
        channels (int): Channels of input and output.
        kernel_size (int): Side of the kernel when there is one part.
        splits (int): Number of nearly equal parts, 1 to 3; two and more take
            the kernels 3, 5, 7 in this order. Defaults to 1.
        **kwargs: ``norm_cfg`` and ``deploy`` of :class:`ConvBN`.
    """

    def __init__(
        self, channels: int, kernel_size: int, splits: int = 1, **kwargs
    ):
        kernels = SPLIT_KERNELS[:splits] if splits > 1 else (kernel_size,)
        self.widths = [
            channels // splits + (i < channels % splits) for i in range(splits)
        ]
        super().__init__(
            LocalPart(width, kernel, **kwargs)
            for width, kernel in zip(self.widths, kernels, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        if len(self) == 1:
            return self[0](x)
        parts = x.split(self.widths, dim=1)
        return torch.cat(
            [part(y) for part, y in zip(self, parts, strict=True)], dim=1
        )


class Mixer(nn.Module):
    """Mix a map by channel groups: global path, local path, identity.

    Args:
        channels (int): Channels of input and output.
        global_ratio (float): Share of the global path.
        local_ratio (float): Share of the local path.
        kernel_size (int): Side of the depthwise kernels of both paths.
        local_splits (int): Parts of the local path. Defaults to 1.
        norm_cfg (dict, optional): Config of BatchNorm. Defaults to None.
        deploy (bool): Build the fused form. Defaults to False.
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
        norm_cfg: dict | None = None,
        deploy: bool = False,
        **kwargs,
    ):
        super().__init__()
        common = dict(norm_cfg=norm_cfg, deploy=deploy)
        self.widths = split_channels(channels, global_ratio, local_ratio)
        wide, local, _ = self.widths
        self.global_path = self.local_path = None
        if wide:
            self.global_path = GlobalPath(
                wide, kernel_size, **kwargs, **common
            )
        if local:
            self.local_path = LocalPath(
                local, kernel_size, local_splits, **common
            )
        # In place: what it takes is a fresh concatenation.
        self.act = nn.ReLU(inplace=True)
        self.proj = ConvBN(channels, channels, zero_init=True, **common)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Mix a map.

        Args:
            x (Tensor): Map (batch, channels, H, W).
            add (Tensor, optional): Added to the result, of its shape.
                Defaults to None.

        Returns:
            Tensor: Map of the shape of ``x``.
        """
        wide, local, rest = x.split(self.widths, dim=1)
        if self.global_path is not None:
            wide = self.global_path(wide)
        if self.local_path is not None:
            local = self.local_path(local)
        return self.proj(
            self.act(torch.cat((wide, local, rest), dim=1)), add=add
        )

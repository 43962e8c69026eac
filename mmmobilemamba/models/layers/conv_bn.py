"""Convolution with BatchNorm, and the residual parts built from it."""

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ...ops import product_kernels
from .fused_conv import FusedConv2d, activate_and_add


class ConvBN(nn.Module):
    """Convolution without bias, then BatchNorm.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        kernel_size (int): Side of the kernel in pixels. Defaults to 1.
        stride (int): Stride in pixels. Defaults to 1.
        groups (int): Convolution groups. Defaults to 1.
        norm_cfg (dict): Config of a BatchNorm layer. Defaults to
            ``dict(type='BN')``.
        zero_init (bool): Start BatchNorm's weight at 0, so that a residual
            branch begins as nothing. Defaults to False.
        deploy (bool): Build the fused form, one convolution with bias.
            Defaults to False.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm_cfg: dict | None = None,
        zero_init: bool = False,
        deploy: bool = False,
    ):
        super().__init__()
        self.conv = FusedConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=deploy,
        )
        self.bn = None
        if not deploy:
            norm_cfg = norm_cfg or dict(type='BN')
            self.bn = build_norm_layer(norm_cfg, out_channels)[1]
            if not isinstance(self.bn, _BatchNorm):
                raise ValueError(
                    f'norm_cfg={norm_cfg} is no BatchNorm; allowed are the '
                    'BatchNorm types of mmcv: BN, BN2d, SyncBN, MMSyncBN.'
                )
            if zero_init:
                nn.init.zeros_(self.bn.weight)

    def forward(
        self, x: Tensor, act: str | None = None, add: Tensor | None = None
    ) -> Tensor:
        """Convolve and normalise, activate, then add.

        Args:
            x (Tensor): Map (batch, in_channels, H, W).
            act (str, optional): ``'relu'``, ``'silu'`` or None. Defaults to
                None.
            add (Tensor, optional): Added to the result, of its shape.
                Defaults to None.

        Returns:
            Tensor: Map (batch, out_channels, H / stride, W / stride).
        """
        if self.bn is None:
            return self.conv(x, act, add)
        return activate_and_add(self.bn(self.conv(x)), act, add)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fuse BatchNorm into the convolution; a second call does nothing."""
        if self.bn is None:
            return
        conv, bn = self.conv, self.bn
        weight, bias = fuse_conv_bn_weights(
            conv.weight.double(),
            None,
            bn.running_mean.double(),
            bn.running_var.double(),
            bn.eps,
            bn.weight.double(),
            bn.bias.double(),
        )
        self.bn = None
        conv.weight.copy_(weight)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype))


class ResidualDWConv(ConvBN):
    """Depthwise 3x3 ConvBN with a shortcut; one convolution once deployed.

    Args:
        channels (int): Channels of input and output.
        **kwargs: ``norm_cfg``, ``zero_init`` and ``deploy`` of
            :class:`ConvBN`.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(channels, channels, 3, groups=channels, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        # The deployed kernel holds the shortcut in its centre.
        return super().forward(x, add=None if self.bn is None else x)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fuse BatchNorm and the shortcut into the convolution."""
        if self.bn is None:
            return
        super().switch_to_deploy()
        self.conv.weight[:, 0, 1, 1] += 1


class ResidualFFN(nn.Module):
    """Two 1x1 ConvBN with a ReLU between them and a shortcut around.

    Args:
        channels (int): Channels of input and output; the hidden layer has
            twice as many.
        **kwargs: ``norm_cfg`` and ``deploy`` of :class:`ConvBN`.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__()
        self.pw1 = ConvBN(channels, 2 * channels, **kwargs)
        self.pw2 = ConvBN(2 * channels, channels, zero_init=True, **kwargs)

    def forward(
        self,
        x: Tensor,
        before: ResidualDWConv | None = None,
        add: Tensor | None = None,
    ) -> Tensor:
        """Run the part, the filter before it and a shortcut around both.

        In inference on a CPU the extension runs all of it at once.

        Args:
            x (Tensor): Map (batch, channels, H, W).
            before (ResidualDWConv, optional): What ``x`` goes through first.
                Defaults to None.
            add (Tensor, optional): Added to the result, of its shape.
                Defaults to None.

        Returns:
            Tensor: Map of the shape of ``x``.
        """
        fused = self.pw1.bn is None and (before is None or before.bn is None)
        if fused and self.pw1.conv.infers_on_cpu(x):
            first, second = self.pw1.conv, self.pw2.conv
            kernels = product_kernels(first.backend)
            if kernels is not None:
                return kernels.feed_forward(
                    x,
                    *first.packed(kernels),
                    *second.packed(kernels),
                    first.out_channels,
                    'relu',
                    *(before.conv.packed_filter(kernels) if before else ()),
                    add=add,
                )
        if before is not None:
            x = before(x)
        y = self.pw2(self.pw1(x, act='relu'), add=x)
        return y if add is None else add + y

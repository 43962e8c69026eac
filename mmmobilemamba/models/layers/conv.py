"""Convolution with BatchNorm, and the residual parts built from it."""

from torch import Tensor, nn


class ConvBN(nn.Module):
    """Convolution without bias, then BatchNorm.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        kernel_size (int): Side of the kernel in pixels. Defaults to 1.
        stride (int): Stride in pixels. Defaults to 1.
        groups (int): Convolution groups. Defaults to 1.
        zero_init (bool): Start BatchNorm's weight at 0, so that a residual
            branch begins as nothing. Defaults to False.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        zero_init: bool = False,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        if zero_init:
            nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, H, W) to (batch, out, H / stride, W / stride)."""
        return self.bn(self.conv(x))


class ResidualDWConv(ConvBN):
    """Depthwise 3x3 ConvBN with a shortcut."""

    def __init__(self, channels: int, zero_init: bool = False):
        super().__init__(
            channels, channels, 3, groups=channels, zero_init=zero_init
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        return x + super().forward(x)


class ResidualFFN(nn.Module):
    """Two 1x1 ConvBN with a ReLU between them and a shortcut around.

    The hidden layer has twice as many channels.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.pw1 = ConvBN(channels, 2 * channels)
        self.act = nn.ReLU(inplace=True)
        self.pw2 = ConvBN(2 * channels, channels, zero_init=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        return x + self.pw2(self.act(self.pw1(x)))

"""Stem, blocks of a stage, and the transition between two stages."""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from .conv import ConvBN, ResidualDWConv, ResidualFFN
from .mixer import Mixer


class Stem(nn.Sequential):
    """Four 3x3 ConvBN of stride 2 with ReLU between them.

    Maps (batch, in, H, W) to (batch, out, H / 16, W / 16).

    Source: MobileMamba (arXiv:2411.15941), section 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        for i in range(4):
            channels = out_channels // 2 ** (3 - i)
            self.add_module(f'{i}', ConvBN(in_channels, channels, 3, stride=2))
            if i < 3:
                self.add_module(f'act{i}', nn.ReLU(inplace=True))
            in_channels = channels


class MobileMambaBlock(nn.Module):
    """Depthwise, FFN, mixer, depthwise, FFN, with a shortcut around all.

    The outer shortcut adds the input to a result that already holds it
    through the inner ones, as in the published network.

    Args:
        channels (int): Channels of input and output.
        drop_path (float): Probability of dropping the branch of the outer
            shortcut, per sample. Defaults to 0.
        **kwargs: Arguments of :class:`Mixer`.

    Source: MobileMamba (arXiv:2411.15941), figure 4.
    """

    def __init__(self, channels: int, drop_path: float = 0.0, **kwargs):
        super().__init__()
        self.dw0 = ResidualDWConv(channels, zero_init=True)
        self.ffn0 = ResidualFFN(channels)
        self.mixer = Mixer(channels, **kwargs)
        self.dw1 = ResidualDWConv(channels, zero_init=True)
        self.ffn1 = ResidualFFN(channels)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        y = self.ffn0(self.dw0(x))
        y = y + self.mixer(y)
        y = self.ffn1(self.dw1(y))
        return x + self.drop_path(y)


class Downsample(nn.Module):
    """Halve a map between two stages and change its channels.

    A stride-2 inverted bottleneck with squeeze-and-excitation, between a
    residual depthwise convolution and FFN on either side.

    Source: MobileMamba (arXiv:2411.15941), section 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        hidden = 4 * in_channels
        self.dw0 = ResidualDWConv(in_channels)
        self.ffn0 = ResidualFFN(in_channels)
        self.expand = ConvBN(in_channels, hidden)
        self.dwconv = ConvBN(hidden, hidden, 3, stride=2, groups=hidden)
        self.act = nn.ReLU(inplace=True)
        self.se = SqueezeExcitation(hidden, in_channels)
        self.project = ConvBN(hidden, out_channels)
        self.dw1 = ResidualDWConv(out_channels)
        self.ffn1 = ResidualFFN(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, H, W) to (batch, out, ceil(H/2), ceil(W/2))."""
        x = self.ffn0(self.dw0(x))
        x = self.act(self.expand(x))
        x = self.act(self.dwconv(x))
        x = self.project(self.se(x))
        return self.ffn1(self.dw1(x))

"""Blocks of a stage and the transition between two stages."""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torchvision import ops

from .conv_bn import ConvBN, ResidualDWConv, ResidualFFN
from .fused_conv import FusedConv2d
from .mixer import Mixer


class MobileMambaBlock(nn.Module):
    """Depthwise, FFN, mixer, depthwise, FFN, with a shortcut around all.

    The outer shortcut adds the input to a result that already holds it
    through the inner ones, as in the published network.

    Args:
        channels (int): Channels of input and output.
        drop_path (float): Probability of dropping the branch of the outer
            shortcut, per sample. Defaults to 0.
        norm_cfg (dict, optional): Config of BatchNorm. Defaults to None.
        deploy (bool): Build the fused form. Defaults to False.
        **kwargs: Arguments of :class:`Mixer`.

    Source: MobileMamba (arXiv:2411.15941), figure 4.
    """

    def __init__(
        self,
        channels: int,
        drop_path: float = 0.0,
        norm_cfg: dict | None = None,
        deploy: bool = False,
        **kwargs,
    ):
        super().__init__()
        common = dict(norm_cfg=norm_cfg, deploy=deploy)
        self.dw0 = ResidualDWConv(channels, zero_init=True, **common)
        self.ffn0 = ResidualFFN(channels, **common)
        self.mixer = Mixer(channels, **kwargs, **common)
        self.dw1 = ResidualDWConv(channels, zero_init=True, **common)
        self.ffn1 = ResidualFFN(channels, **common)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same shape."""
        y = self.ffn0(x, before=self.dw0)
        y = self.mixer(y, add=y)
        if self.training:
            return x + self.drop_path(self.ffn1(y, before=self.dw1))
        return self.ffn1(y, before=self.dw1, add=x)


class SqueezeExcitation(ops.SqueezeExcitation):
    """Scale the channels of a map by a function of their means.

    Args:
        channels (int): Channels of input and output.
        hidden (int): Channels between the two 1x1 convolutions.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__(channels, hidden)
        self.fc1 = FusedConv2d(channels, hidden, 1)
        self.fc2 = FusedConv2d(hidden, channels, 1)


class Downsample(nn.Module):
    """Halve a map between two stages and change its channels.

    A stride-2 inverted bottleneck with squeeze-and-excitation, between a
    residual depthwise convolution and FFN on either side.

    Args:
        in_channels (int): Channels before.
        out_channels (int): Channels after.
        **kwargs: ``norm_cfg`` and ``deploy`` of :class:`ConvBN`.

    Source: MobileMamba (arXiv:2411.15941), section 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs):
        super().__init__()
        hidden = 4 * in_channels
        self.dw0 = ResidualDWConv(in_channels, **kwargs)
        self.ffn0 = ResidualFFN(in_channels, **kwargs)
        self.expand = ConvBN(in_channels, hidden, **kwargs)
        self.dwconv = ConvBN(
            hidden, hidden, 3, stride=2, groups=hidden, **kwargs
        )
        self.se = SqueezeExcitation(hidden, in_channels)
        self.project = ConvBN(hidden, out_channels, **kwargs)
        self.dw1 = ResidualDWConv(out_channels, **kwargs)
        self.ffn1 = ResidualFFN(out_channels, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, H, W) to (batch, out, ceil(H/2), ceil(W/2))."""
        x = self.ffn0(x, before=self.dw0)
        x = self.expand(x, act='relu')
        x = self.se(self.dwconv(x, act='relu'))
        return self.ffn1(self.project(x), before=self.dw1)

"""Feature pyramid that makes its finer levels by transposed convolution."""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class DeconvFPN(BaseModule):
    """Make a feature pyramid for a backbone without fine levels.

    Lateral 1x1 convolutions, top-down sums with nearest upsampling and 3x3
    output convolutions are those of an FPN. Finer levels than the backbone
    has come from a chain of 2x2 transposed convolutions that starts at the
    finest summed lateral; coarser ones from 3x3 convolutions of stride 2 on
    the backbone's last map. There is no activation anywhere.

    How many levels to add is said by their number, or by the strides that
    the pyramid shall have: then finer maps than the finest of these are left
    out, and coarser ones than the coarsest add to the others only.

    Args:
        in_channels (Sequence[int]): Channels of the input maps, finest first.
        out_channels (int): Channels of every output map.
        num_finer (int): Number of levels below the finest input's stride,
            each with half the stride of the one before. Defaults to 0.
        num_coarser (int): Number of levels above the coarsest input's
            stride, each with twice the stride of the one before.
            Defaults to 0.
        in_strides (Sequence[int], optional): Strides of the input maps, each
            twice the one before, wanted with ``out_strides``.
            Defaults to None.
        out_strides (Sequence[int], optional): Strides of the output maps,
            each twice the one before, instead of ``num_finer`` and
            ``num_coarser``. Defaults to None.
        norm_cfg (dict, optional): Norm layer of the lateral and the 3x3
            convolutions, which then lose their bias. Defaults to None, as
            published.
        init_cfg (dict or list[dict], optional): Initialisation. Defaults to
            None, which is Xavier-uniform with zero bias for the ordinary
            convolutions and PyTorch's default for the transposed ones.

    Raises:
        ValueError: The strides do not double, no map has one of the
            pyramid's, or levels are asked for in both ways.

    Source: MobileMamba (arXiv:2411.15941), downstream experiments.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_finer: int = 0,
        num_coarser: int = 0,
        in_strides: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            init_cfg=init_cfg
            or dict(
                type='Xavier', layer='Conv2d', distribution='uniform', bias=0
            )
        )
        self.in_channels = tuple(in_channels)
        self.out_channels = out_channels
        self.out_strides = None
        self.first_used, self.num_kept = 0, len(self.in_channels)
        if out_strides is not None:
            if num_finer or num_coarser:
                raise ValueError(
                    'out_strides takes the place of num_finer and '
                    f'num_coarser, got {num_finer} and {num_coarser} too.'
                )
            num_finer, num_coarser = self._plan(in_strides, out_strides)
        self.num_finer, self.num_coarser = num_finer, num_coarser

        conv = partial(ConvModule, norm_cfg=norm_cfg, act_cfg=None)
        conv3x3 = partial(conv, kernel_size=3, padding=1)
        self.lateral_convs = nn.ModuleList(
            conv(channels, out_channels, 1)
            for channels in self.in_channels[self.first_used :]
        )
        self.fpn_convs = nn.ModuleList(
            conv3x3(out_channels, out_channels) for _ in range(self.num_kept)
        )
        # The first coarser level reads the backbone, the next ones each other.
        for i in range(num_coarser):
            channels = out_channels if i else self.in_channels[-1]
            self.fpn_convs.append(conv3x3(channels, out_channels, stride=2))
        self.extra_trans_convs = nn.ModuleList(
            ConvModule(
                out_channels,
                out_channels,
                2,
                stride=2,
                conv_cfg=dict(type='deconv'),
                act_cfg=None,
            )
            for _ in range(num_finer)
        )
        self.extra_fpn_convs = nn.ModuleList(
            conv3x3(out_channels, out_channels) for _ in range(num_finer)
        )
        # ConvModule draws its weights for a ReLU that is not here.
        for module in self.extra_trans_convs:
            module.conv.reset_parameters()

    def _plan(
        self, in_strides: Sequence[int] | None, out_strides: Sequence[int]
    ) -> tuple[int, int]:
        """Return how many finer and coarser levels given strides ask for.

        Sets which inputs are used, and how many of these are put out.
        """
        for name, strides in (
            ('in_strides', in_strides or ()),
            ('out_strides', out_strides),
        ):
            doubled = [2 * stride for stride in strides[:-1]]
            if not strides or doubled != list(strides[1:]):
                raise ValueError(
                    f'{name} must double from map to map, got {strides!r}.'
                )
        if len(in_strides) != len(self.in_channels):
            raise ValueError(
                f'in_strides={in_strides!r} must be as many as in_channels.'
            )
        kept = [stride for stride in in_strides if stride in out_strides]
        if not kept:
            raise ValueError(
                f'out_strides={out_strides!r} has no stride of the input '
                f'maps, {in_strides!r}.'
            )
        self.out_strides = tuple(out_strides)
        self.first_used = list(in_strides).index(kept[0])
        self.num_kept = len(kept)
        return (
            sum(stride < kept[0] for stride in out_strides),
            sum(stride > kept[-1] for stride in out_strides),
        )

    @property
    def num_outs(self) -> int:
        """Number of output maps."""
        return self.num_finer + self.num_kept + self.num_coarser

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the pyramid.

        Args:
            inputs (Sequence[Tensor]): Maps of the backbone, finest first,
                each (batch, in_channels[i], height, width).

        Returns:
            tuple[Tensor]: ``num_outs`` maps, finest first, each
            (batch, out_channels, height, width).
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'in_channels={self.in_channels} is for '
                f'{len(self.in_channels)} input maps, got {len(inputs)}.'
            )
        laterals = [
            conv(x)
            for conv, x in zip(
                self.lateral_convs, inputs[self.first_used :], strict=True
            )
        ]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + F.interpolate(
                laterals[i], size=laterals[i - 1].shape[2:], mode='nearest'
            )

        finer, x = [], laterals[0]
        for conv in self.extra_trans_convs:
            x = conv(x)
            finer.insert(0, x)
        # The chain runs towards fine, the 3x3 count from the finest level.
        outs = [
            conv(x)
            for conv, x in zip(self.extra_fpn_convs, finer, strict=True)
        ]
        # These convolutions may be fewer than the laterals, or more.
        outs += [
            conv(x)
            for conv, x in zip(self.fpn_convs[: self.num_kept], laterals)
        ]
        x = inputs[-1]
        for conv in self.fpn_convs[self.num_kept :]:
            x = conv(x)
            outs.append(x)
        return tuple(outs)

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

    An FPN whose finer levels than the backbone has come from a chain of 2x2
    transposed convolutions, which starts at the finest summed lateral, and
    coarser ones from 3x3 convolutions of stride 2 on the backbone's last map.
    There is no activation anywhere.

    How many levels to add is said by their number, or by the strides of the
    pyramid: then finer maps than the finest of these are left out, and
    coarser ones than the coarsest add to the others only.

    Args:
        in_channels (Sequence[int]): Channels of the input maps, finest first.
        out_channels (int): Channels of every output map.
        num_finer (int): Number of levels below the finest input's stride,
            each of half the stride of the one before. Defaults to 0.
        num_coarser (int): Number of levels above the coarsest input's
            stride, each of twice the stride. Defaults to 0.
        in_strides (Sequence[int], optional): Strides of the input maps, each
            twice the one before, for ``out_strides``. Defaults to None.
        out_strides (Sequence[int], optional): Strides of the output maps,
            likewise, in the place of both numbers. Defaults to None.
        norm_cfg (dict, optional): Norm layer of the lateral and the 3x3
            convolutions, which then lose their bias. Defaults to None, as
            published.
        init_cfg (dict or list[dict], optional): Initialisation. Defaults to
            None, which is Xavier-uniform with zero bias for the ordinary
            convolutions and PyTorch's default for the transposed ones.

    Raises:
        ValueError: The strides do not double or do not meet.

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
        # Inputs whose sums are given out; coarser ones only add to them.
        self.kept = slice(0, len(self.in_channels))
        if out_strides is not None:
            num_finer, num_coarser = self._plan(
                list(in_strides or ()), list(out_strides)
            )
        conv = partial(ConvModule, norm_cfg=norm_cfg, act_cfg=None)
        conv3x3 = partial(conv, kernel_size=3, padding=1)
        self.lateral_convs = nn.ModuleList(
            conv(channels, out_channels, 1)
            for channels in self.in_channels[self.kept.start :]
        )
        self.fpn_convs = nn.ModuleList(
            conv3x3(out_channels, out_channels)
            for _ in self.in_channels[self.kept]
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
        self, in_strides: list[int], out_strides: list[int]
    ) -> tuple[int, int]:
        """Return the numbers of finer and coarser levels; set ``kept``."""
        kept = [i for i, x in enumerate(in_strides) if x in out_strides]
        if (
            not kept
            or len(in_strides) != len(self.in_channels)
            or any(
                b != 2 * a
                for row in (in_strides, out_strides)
                for a, b in zip(row, row[1:])
            )
        ):
            raise ValueError(
                f'in_strides={in_strides} must be one for each of in_channels='
                f'{self.in_channels}, some of out_strides={out_strides}, and '
                'both must double from map to map.'
            )
        self.kept = slice(kept[0], kept[-1] + 1)
        num_finer = out_strides.index(in_strides[kept[0]])
        return num_finer, len(out_strides) - num_finer - len(kept)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make maps (batch, out_channels, height, width), finest first, of the
        backbone's (batch, in_channels[i], height, width)."""
        used = inputs[self.kept.start :]
        laterals = [
            conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)
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
        outs += [conv(x) for conv, x in zip(self.fpn_convs, laterals)]
        x = inputs[-1]
        for conv in self.fpn_convs[self.kept.stop - self.kept.start :]:
            x = conv(x)
            outs.append(x)
        return tuple(outs)

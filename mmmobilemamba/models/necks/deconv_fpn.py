"""Feature pyramid that makes its finer levels by transposed convolution."""

from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor

from mmmobilemamba.models.arguments import MAX_CHANNELS, check_int, check_ints
from mmmobilemamba.models.part_configs import (
    BATCH_NORMS,
    check_init_cfg,
    check_norm_cfg,
)
from mmmobilemamba.registry import MODELS

# Beyond these a pyramid is a mistake, and one of gigabytes.
MAX_LEVELS = 8
NORMS = (*BATCH_NORMS, 'GN', 'IN', 'IN2d')


def _check_strides(name: str, strides: object) -> tuple[int, ...]:
    """Return strides as a tuple; raise unless each doubles the one before."""
    strides = check_ints(name, strides, 1, meaning='one per map')
    doubled = tuple(strides[0] * 2**i for i in range(len(strides)))
    if strides != doubled:
        raise ValueError(f'{name} must double from map to map, got {strides}.')
    return strides


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
        TypeError: If a number of channels, levels or a stride is no integer.
        ValueError: If one of these is out of range, or no map has a stride
            of the pyramid.

    Source: MobileMamba (arXiv:2411.15941), downstream experiments.

    Example:
        >>> import torch
        >>> from mmmobilemamba.models import DeconvFPN
        >>> neck = DeconvFPN((200, 376, 448), 256, num_finer=2)
        >>> maps = [
        ...     torch.rand(1, 200, 8, 8),
        ...     torch.rand(1, 376, 4, 4),
        ...     torch.rand(1, 448, 2, 2),
        ... ]
        >>> for out in neck(maps):
        ...     print(tuple(out.shape))
        (1, 256, 32, 32)
        (1, 256, 16, 16)
        (1, 256, 8, 8)
        (1, 256, 4, 4)
        (1, 256, 2, 2)
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
        if init_cfg is None:
            init_cfg = dict(
                type='Xavier', layer='Conv2d', distribution='uniform', bias=0
            )
        check_init_cfg(init_cfg, loads_strictly=False)
        super().__init__(init_cfg=init_cfg)
        self.in_channels = check_ints(
            'in_channels', in_channels, 1, MAX_CHANNELS, 'one per input map'
        )
        check_int('out_channels', out_channels, 1, MAX_CHANNELS)
        check_int('num_finer', num_finer, 0, MAX_LEVELS)
        check_int('num_coarser', num_coarser, 0, MAX_LEVELS)
        if norm_cfg is not None:
            check_norm_cfg(norm_cfg, NORMS)
            groups = norm_cfg.get('num_groups', 1)
            if out_channels % groups:
                raise ValueError(
                    f"norm_cfg['num_groups']={groups} must divide "
                    f'out_channels={out_channels}.'
                )

        self.out_channels = out_channels
        self.out_strides = None
        self.first_used = 0
        self.num_kept = len(self.in_channels)
        if in_strides is not None:
            in_strides = self._check_in_strides(in_strides)
        if out_strides is not None:
            if num_finer or num_coarser:
                raise ValueError(
                    'out_strides takes the place of num_finer and '
                    f'num_coarser, but got {num_finer} and {num_coarser} too'
                )
            num_finer, num_coarser = self._plan(in_strides, out_strides)
        self.num_finer = num_finer
        self.num_coarser = num_coarser
        used_channels = self.in_channels[self.first_used :]

        def conv3x3(channels: int, stride: int = 1) -> ConvModule:
            return ConvModule(
                channels,
                out_channels,
                3,
                stride=stride,
                padding=1,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )

        self.lateral_convs = nn.ModuleList(
            ConvModule(c, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None)
            for c in used_channels
        )
        self.fpn_convs = nn.ModuleList(
            conv3x3(out_channels) for _ in range(self.num_kept)
        )
        # The first coarser level reads the backbone, the next ones each other.
        for i in range(num_coarser):
            channels = self.in_channels[-1] if i == 0 else out_channels
            self.fpn_convs.append(conv3x3(channels, stride=2))
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
            conv3x3(out_channels) for _ in range(num_finer)
        )
        # ConvModule draws its weights for a ReLU that is not here.
        for module in self.extra_trans_convs:
            module.conv.reset_parameters()

    def _check_in_strides(self, in_strides: object) -> tuple[int, ...]:
        strides = _check_strides('in_strides', in_strides)
        if len(strides) != len(self.in_channels):
            raise ValueError(
                f'in_strides must name {len(self.in_channels)} maps as '
                f'in_channels does, got {strides}.'
            )
        return strides

    def _plan(self, in_strides, out_strides) -> tuple[int, int]:
        """Return the numbers of finer and coarser levels for given strides.

        Sets which inputs are used, and how many of these are put out.
        """
        ins = self._check_in_strides(in_strides)
        outs = _check_strides('out_strides', out_strides)
        kept = [stride for stride in ins if stride in outs]
        if not kept:
            raise ValueError(
                f'out_strides={outs} has no stride of the input maps, {ins}'
            )
        self.out_strides = outs
        self.first_used = ins.index(kept[0])
        self.num_kept = len(kept)
        finer = sum(stride < kept[0] for stride in outs)
        coarser = sum(stride > kept[-1] for stride in outs)
        if max(finer, coarser) > MAX_LEVELS:
            raise ValueError(
                f'out_strides={outs} must add {MAX_LEVELS} levels or less at '
                'either end.'
            )
        return finer, coarser

    @property
    def num_outs(self) -> int:
        """int: Number of output maps."""
        return self.num_finer + self.num_kept + self.num_coarser

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the pyramid.

        Args:
            inputs (Sequence[Tensor]): Maps of the backbone, finest first,
                each (batch, in_channels[i], height, width).

        Returns:
            tuple[Tensor]: ``num_outs`` maps, finest first, each
            (batch, out_channels, height, width).

        Raises:
            ValueError: If the number of maps is not that of ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'DeconvFPN was built for {len(self.in_channels)} input maps '
                f'(in_channels={self.in_channels}), but got {len(inputs)}; '
                "do the backbone's out_indices match?"
            )
        used = inputs[self.first_used :]
        laterals = [
            conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)
        ]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + F.interpolate(
                laterals[i], size=laterals[i - 1].shape[2:], mode='nearest'
            )

        finer = []
        x = laterals[0]
        for conv in self.extra_trans_convs:
            x = conv(x)
            finer.append(x)
        # The chain runs towards fine, the 3x3 count from the finest level.
        outs = [
            conv(x)
            for conv, x in zip(
                self.extra_fpn_convs, reversed(finer), strict=True
            )
        ]
        outs.extend(
            conv(x)
            for conv, x in zip(
                self.fpn_convs[: self.num_kept],
                laterals[: self.num_kept],
                strict=True,
            )
        )
        x = inputs[-1]
        for conv in self.fpn_convs[self.num_kept :]:
            x = conv(x)
            outs.append(x)
        return tuple(outs)

"""MobileMamba backbone: variants, stages, freezing, deployment."""

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...checkpoints.checkpoint import backbone_tensors, load_weights
from ...checkpoints.key_map import is_published, state_dict_from_published
from ...registry import MODELS
from ..layers import ConvBN, Downsample, MobileMambaBlock, Stem, deploy_layers
from .arch import resolve_arch
from .feature_backbone import FeatureBackbone, track_once


@MODELS.register_module()
class MobileMamba(FeatureBackbone):
    """Three-stage backbone of scans, wavelets and depthwise convolutions.

    A PyTorch implementation of `MobileMamba: Lightweight Multi-Receptive
    Visual Mamba Network <https://arxiv.org/abs/2411.15941>`_.

    Args:
        arch (str or dict): A published variant, ``'t2'``, ``'t4'``, ``'s6'``,
            ``'b1'``, ``'b2'`` or ``'b4'`` (the last three differ in image
            size only), or a dict with the keys ``channels`` and ``depths``
            (three ints each) and any of

            - **global_ratios**, **local_ratios** (list[float]): Shares of the
              paths. Default to (0.8, 0.7, 0.6) and (0.2, 0.2, 0.3).
            - **kernel_sizes** (list[int]): Odd kernel sides per stage.
              Defaults to (7, 5, 3).
            - **ssm_ratio** (float): Inner channels of the scan over its
              outer ones. Defaults to 2.
            - **d_state** (int): State size of the scan. Defaults to 1.
            - **scan_directions** (int): 1, 2 or 4. Defaults to 2.
            - **wavelet_levels** (int): 0 to 3. Defaults to 1.
            - **local_splits** (int): 1 to 3. Defaults to 1.
            - **drop_path_rate** (float): Defaults to 0.

            Defaults to ``'b1'``.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (Sequence[int]): Stages to return, counted from 0;
            negative ones count from the end. Stages behind the last one are
            built, so that published files fit, but neither run nor trained.
            Defaults to (0, 1, 2).
        frozen_stages (int): -1 freezes nothing, 0 the stem, n the stem and
            the first n stages. Defaults to -1.
        norm_eval (bool): Keep every BatchNorm in evaluation mode while
            training. Defaults to False.
        drop_path_rate (float, optional): Probability of dropping the last
            block's branch, rising linearly from 0 at the first block. None
            takes the arch's. Defaults to None.
        norm_cfg (dict, optional): Config of a BatchNorm type. Defaults to
            None, which is ``dict(type='BN')``.
        with_cp (bool): Recompute blocks in the backward pass to save memory.
            Defaults to False.
        deploy (bool): Build the form that :meth:`switch_to_deploy` makes.
            Defaults to False.
        init_cfg (dict, optional): ``dict(type='Pretrained',
            checkpoint=PATH)`` takes a published file or one of ours, and
            refuses one that does not fit. Defaults to None.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> import torch
        >>> from mmmobilemamba.models import MobileMamba
        >>> model = MobileMamba('b1').eval()
        >>> [tuple(out.shape) for out in model(torch.rand(1, 3, 256, 256))]
        [(1, 200, 16, 16), (1, 376, 8, 8), (1, 448, 4, 4)]
    """

    def __init__(
        self,
        arch: str | dict = 'b1',
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float | None = None,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        arch = resolve_arch(arch)
        channels, depths = arch['channels'], arch['depths']
        feature_info = [
            dict(num_chs=width, reduction=16 * 2**i)
            for i, width in enumerate(channels)
        ]
        self._set_stages(feature_info, out_indices, frozen_stages)
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.deploy = False

        self.stem = Stem(in_channels, channels[0])
        if drop_path_rate is None:
            drop_path_rate = arch['drop_path_rate']
        last = max(sum(depths) - 1, 1)
        drops = [drop_path_rate * i / last for i in range(sum(depths))]
        choices = ('local_splits', 'wavelet_levels', 'ssm_ratio', 'd_state')
        mixer = {key: arch[key] for key in (*choices, 'scan_directions')}
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(channels, depths, strict=True)):
            stage = nn.Module()
            if i:
                stage.downsample = Downsample(channels[i - 1], width)
            stage.blocks = nn.ModuleList(
                MobileMambaBlock(
                    width,
                    drop_path=drops.pop(0),
                    global_ratio=arch['global_ratios'][i],
                    local_ratio=arch['local_ratios'][i],
                    kernel_size=arch['kernel_sizes'][i],
                    **mixer,
                )
                for _ in range(depth)
            )
            self.stages.append(stage)

        if norm_cfg is not None:
            self._set_norm(norm_cfg)
        if with_cp:
            track_once(self)
        if deploy:
            self.switch_to_deploy()
        self._freeze()

    def _set_norm(self, norm_cfg: dict) -> None:
        """Put norms of a config in the place of the plain ones."""
        for part in self.modules():
            if not isinstance(part, ConvBN):
                continue
            norm = build_norm_layer(norm_cfg, part.bn.num_features)[1]
            if not isinstance(norm, _BatchNorm):
                raise ValueError(
                    f'norm_cfg={norm_cfg} is no BatchNorm, which alone can '
                    'be folded; allowed are the types BN, BN2d and SyncBN.'
                )
            norm.load_state_dict(part.bn.state_dict())
            part.bn = norm

    def _freeze(self) -> None:
        """Take frozen and unread parts out of training."""
        frozen = list(self.stages[self.out_indices[-1] + 1 :])
        if self.frozen_stages >= 0:
            frozen += [self.stem, *self.stages[: self.frozen_stages]]
        for part in frozen:
            part.eval()
            for parameter in part.parameters():
                parameter.requires_grad = False

    def _load(self, tensors: dict[str, Tensor], source: str) -> None:
        load_weights(self, backbone_tensors(tensors), source)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args, **kwargs
    ) -> None:
        """Take published names, too."""
        names = [name for name in state_dict if name.startswith(prefix)]
        if is_published(name.removeprefix(prefix) for name in names):
            given = {n.removeprefix(prefix): state_dict.pop(n) for n in names}
            ours = state_dict_from_published(backbone_tensors(given))
            state_dict.update({prefix + k: v for k, v in ours.items()})
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the stages in ``out_indices``.

        Args:
            x (Tensor): Images (batch, in_channels, H, W), H and W from 32
                pixels up, contiguous or channels_last.

        Returns:
            tuple[Tensor]: A map (batch, channels, H / stride, W / stride)
            per stage, strides 16, 32, 64; sides are rounded up at every
            halving.
        """
        height, width = x.shape[2:]
        if min(height, width) < 32:
            raise ValueError(
                f'Images are at least 32x32 pixels, got {height}x{width}.'
            )
        # Faster layouts within are not for mmcv's operators, RoIAlign above
        # all, which read memory as if it were contiguous.
        contiguous = x.is_contiguous()
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages[: self.out_indices[-1] + 1]):
            if i:
                x = stage.downsample(x)
            for block in stage.blocks:
                if self.with_cp and x.requires_grad:
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if i in self.out_indices:
                outs.append(x.contiguous() if contiguous else x)
        return tuple(outs)

    def switch_to_deploy(self) -> None:
        """Fuse norms, scales and shortcuts into the convolutions, once.

        The result computes the same in evaluation mode, faster, and cannot
        be trained as before.
        """
        deploy_layers(self)
        self.deploy = True

    @property
    def _depths(self) -> dict[str, int]:
        """Layers of the parameters: stem, blocks and downsamplings."""
        units = [self.stem] + [
            module
            for module in self.stages.modules()
            if isinstance(module, Downsample | MobileMambaBlock)
        ]
        depths = {
            p: i for i, unit in enumerate(units) for p in unit.parameters()
        }
        return {name: depths[p] for name, p in self.named_parameters()}

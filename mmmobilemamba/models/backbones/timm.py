"""Any network of timm as a backbone of the three libraries."""

import sys
from collections.abc import Iterable, Sequence
from functools import cached_property, partial

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checkpoints.checkpoint import (
    backbone_tensors,
    load_weights,
    read_state_dict,
)
from ...registry import MODELS
from .feature_backbone import FeatureBackbone, track_once


def translate_file(
    network: nn.Module, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Let timm translate names and sizes that are not those of a network."""
    module = sys.modules[type(network).__module__]
    convert = getattr(module, 'checkpoint_filter_fn', None)
    wanted = {k: v.shape for k, v in network.named_parameters()}
    given = {k: v.shape for k, v in tensors.items()}
    if convert is None or wanted.items() <= given.items():
        return tensors
    try:
        return dict(convert(dict(tensors), network))
    except (KeyError, ValueError, RuntimeError, AttributeError):
        # It was written for that network's files only, and this is none.
        return tensors


@MODELS.register_module()
class TIMMBackbone(FeatureBackbone):
    """A network of `timm <https://github.com/huggingface/pytorch-image-models>`_
    that gives its maps of several strides.

    Args:
        model_name (str): Name for ``timm.create_model``.
        out_indices (Sequence[int], optional): Levels of timm's feature
            information to return, counted from 0; negative ones count from
            the end. None takes those that timm takes. Defaults to None.
        in_channels (int): Channels of the images. Defaults to 3.
        frozen_stages (int): -1 freezes nothing, 0 what comes before the
            first level, n the stem and the first n levels. Defaults to -1.
        norm_eval (bool): Keep every BatchNorm in evaluation mode while
            training. Defaults to False.
        with_cp (bool): Recompute in the backward pass to save memory, as far
            as timm does. Defaults to False.
        pretrained (bool): Let timm download its weights when the weights are
            initialised. Defaults to False.
        init_cfg (dict, optional): ``dict(type='Pretrained',
            checkpoint=PATH)`` takes a file of timm (``.safetensors`` too), of
            a network's authors where timm reads those, or of ours, and
            refuses one that does not fit. Defaults to None.
        **kwargs: What else ``timm.create_model`` or the network takes, as
            ``drop_path_rate``; ``img_size`` for networks that are built for
            one size.

    Raises:
        ImportError: timm is missing.
        RuntimeError: timm does not know the name.
        ValueError: An argument is outside its range, or the network takes no
            images of ``img_size``.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: bool = False,
        init_cfg: dict | None = None,
        **kwargs,
    ):
        super().__init__(init_cfg=init_cfg)
        self.model_name = model_name
        self.options = dict(in_chans=in_channels, **kwargs)
        levels = self._create('meta', features_only=True).feature_info
        if out_indices is None:
            out_indices = levels.out_indices
        self._set_stages(levels.info, out_indices, frozen_stages)
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.pretrained = pretrained
        self._features = dict(features_only=True, out_indices=self.out_indices)
        self.timm_model = self._create(**self._features)
        if with_cp:
            # A wrapper of timm may leave it to the network that it holds.
            held = getattr(self.timm_model, 'model', self.timm_model)
            held.set_grad_checkpointing(True)
        self.input_size: tuple[int, int] | None = None
        self._unread = self._measure()
        self._freeze()

    def _create(self, device: str = 'cpu', **kwargs) -> nn.Module:
        """Build the network, on ``'meta'`` for its names and shapes alone."""
        import timm  # only where it is asked for

        with torch.device(device):
            network = timm.create_model(
                self.model_name, **self.options, **kwargs
            )
        for module in network.modules():
            if hasattr(module, '_compute_attention_bias_idxs'):
                module.register_forward_pre_hook(
                    partial(_fit_offsets, module.resolution)
                )
        return network

    @torch.enable_grad()
    def _measure(self) -> set[str]:
        """Measure strides; return the parameters that reach no map."""
        from timm import get_pretrained_cfg

        cfg = get_pretrained_cfg(self.model_name)
        side = self.options.get('img_size') or (
            cfg.input_size[-2:]
            if cfg.fixed_input_size
            else 4 * max(level['reduction'] for level in self.feature_info)
        )
        size = (side, side) if isinstance(side, int) else tuple(side)
        network = self._create('meta', **self._features).eval()
        images = torch.empty(1, self.options['in_chans'], *size, device='meta')
        try:
            maps = _maps(network, images)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(
                f'{self.model_name} with {self.options} does not take images '
                f'of {size[0]}x{size[1]} pixels: {error}'
            ) from error
        try:
            wider = _maps(network, torch.cat([images, images], dim=3))
        except (RuntimeError, AssertionError, ValueError):
            self.input_size = size
        else:
            # By what comes on top: unpadded convolutions lose a border.
            for index, m, w in zip(self.out_indices, maps, wider, strict=True):
                more, level = w.shape[3] - m.shape[3], self.feature_info[index]
                if abs(size[1] / level['reduction'] - more) >= 1:
                    level['reduction'] = round(size[1] / more)
        sum(m.sum() for m in maps).backward()
        return {
            f'timm_model.{name}'
            for name, parameter in network.named_parameters()
            if parameter.grad is None
        }

    def _frozen_modules(self) -> list[nn.Module]:
        """Return the modules up to the end of the last frozen stage."""
        if self.frozen_stages < 0:
            return []
        # timm registers modules in the order in which they run.
        modules = list(self.timm_model.modules())
        stage = self.frozen_stages - 1
        level = self.feature_info[max(stage, 0)]['module'].replace('.', '_')
        starts = tuple(
            f'{holder}{level}_' for holder in ('', 'model_', 'body_')
        )
        inside = [
            index
            for index, (name, _) in enumerate(self.timm_model.named_modules())
            if f'{name}_'.replace('.', '_').startswith(starts)
        ]
        if not inside and stage > self.out_indices[-1]:
            return modules  # behind the last one that is read
        if not inside or not level:
            raise ValueError(
                f'{self.model_name} does not keep its stages in modules of '
                f'their own; frozen_stages must be -1, got '
                f'{self.frozen_stages}.'
            )
        return modules[: inside[-1] + 1 if stage >= 0 else inside[0]]

    def _freeze(self) -> None:
        """Take frozen and unread parts out of training."""
        for name, parameter in self.named_parameters():
            if name in self._unread:
                parameter.requires_grad = False
        # One by one, since what holds a frozen part may hold others too.
        for module in self._frozen_modules():
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = False
        if self.with_cp:
            track_once(self)

    def init_weights(self) -> None:
        """Initialise as configured; timm has drawn its own values already."""
        if self.init_cfg:
            super().init_weights()
        elif self.pretrained:
            fetched = self._create(pretrained=True, **self._features)
            self.timm_model.load_state_dict(fetched.state_dict())
        self._is_init = True

    def _load(self, path: str, prefix: str | None) -> None:
        """Fill the network from a file, but for what it does not have."""
        whole = self._create('meta')
        known = whole.state_dict()
        tensors = backbone_tensors(read_state_dict(path), prefix, heads=True)
        names = _whole_names(tensors, known)
        tensors = translate_file(
            whole, {names[name]: value for name, value in tensors.items()}
        )
        own = _whole_names(self.state_dict(), known)
        own = {theirs: ours for ours, theirs in own.items()}
        tensors = {
            own.get(name, name): value
            for name, value in tensors.items()
            if name in own or name not in known
        }
        load_weights(self, tensors, f'{path} ({self.model_name})')
        print_log(f'Loaded {self.model_name} from {path}.', logger='current')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the levels in ``out_indices``.

        Args:
            x (Tensor): Images (batch, in_channels, H, W).

        Returns:
            tuple[Tensor]: A map (batch, channels, H / stride, W / stride)
            per level, whatever layout the network computes in.
        """
        if self.input_size and tuple(x.shape[2:]) != self.input_size:
            height, width = x.shape[2:]
            raise ValueError(
                f'{self.model_name} is built for images of '
                f'{self.input_size[0]}x{self.input_size[1]} pixels, got '
                f'{height}x{width}. Pass img_size=(HEIGHT, WIDTH), and make '
                'all images that size.'
            )
        return _maps(self.timm_model, x)

    def switch_to_deploy(self) -> None:
        """Fuse what timm can fuse; a second call does nothing."""
        from timm.utils.model import reparameterize_model

        self.timm_model = reparameterize_model(self.timm_model, inplace=True)

    @cached_property
    def _depths(self) -> dict[str, int]:
        """Layers of the parameters, which are timm's groups."""
        from timm.models import group_parameters

        whole = self._create('meta')
        matcher = whole.group_matcher(coarse=False)
        groups = group_parameters(whole, matcher, reverse=True)
        names = _whole_names(dict(self.named_parameters()), groups)
        return {ours: groups[name] for ours, name in names.items()}


def _maps(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Run a ``features_only`` network; give NCHW maps."""
    maps = network(images)
    if str(getattr(network, 'output_fmt', '')).endswith('NHWC'):
        maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
    return tuple(maps)


def _whole_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Map names to those of the whole network, where it has them.

    ``features_only`` networks flatten names, ``stages_0`` for ``stages.0``,
    or hold the whole network in ``model`` or ``body``.
    """
    flat = {name.replace('.', '_'): name for name in known}
    found = {}
    for name in names:
        inner = name.removeprefix('timm_model.').replace('.', '_')
        plain = (inner.removeprefix(x) for x in ('', 'model_', 'body_'))
        found[name] = next((flat[x] for x in plain if x in flat), name)
    return found


def _fit_offsets(
    table: tuple[int, int], module: nn.Module, args: tuple[Tensor]
) -> None:
    """Fit EfficientFormer V2's attention to the map that comes.

    It has a bias per offset between two places, from a table as large as the
    map that it was built for. Offsets beyond the table get the bias of its
    border, as clipped relative positions do (arXiv:1803.02155).
    """
    if args[0].dim() != 4:  # LeViT's tokens
        return
    size, stride = args[0].shape[2:], 1
    if getattr(module, 'stride_conv', None) is not None:
        stride = module.stride_conv.conv.stride[0]
        # By factor, an odd side would come back one longer.
        module.upsample = nn.Upsample(size=tuple(size), mode='bilinear')
    fitted = tuple(-(-side // stride) for side in size)
    device = args[0].device
    if module.resolution == fitted and (
        module.attention_bias_idxs.device == device
    ):
        return
    module.resolution, module.N = fitted, fitted[0] * fitted[1]
    if hasattr(module, 'resolution2'):
        module.resolution2 = tuple(-(-side // 2) for side in fitted)
        module.N2 = module.resolution2[0] * module.resolution2[1]
    offsets = module._compute_attention_bias_idxs(device=device)
    down = offsets.div(fitted[1], rounding_mode='floor')
    along = offsets % fitted[1]
    down, along = down.clamp(max=table[0] - 1), along.clamp(max=table[1] - 1)
    module.attention_bias_idxs = down * table[1] + along
    module.attention_bias_cache = {}

"""Any network of timm as a backbone of the three libraries."""

import re
import sys
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ...checkpoints.checkpoint import load_weights
from ...registry import MODELS
from .feature_backbone import FeatureBackbone, track_once


def translate_file(
    network: nn.Module, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Let timm translate names and sizes that are not those of a network."""
    module = sys.modules[type(network).__module__]
    convert = getattr(module, 'checkpoint_filter_fn', None)
    try:
        return dict(convert(dict(tensors), network)) if convert else tensors
    except (KeyError, ValueError, RuntimeError, AttributeError):
        # It was written for that network's files only, and this is none.
        return tensors


def _flat(name: str) -> str:
    """Return a name that a tensor has in the whole network and in ours.

    ``features_only`` networks have ``stages_0`` for ``stages.0``, or hold the
    whole one in ``model`` or ``body``.
    """
    name = name.replace('.', '_')
    return re.sub('^(timm_model_)?((model|body)_)?', '', name)


@MODELS.register_module()
class TIMMBackbone(FeatureBackbone):
    """A network of `timm <https://github.com/huggingface/pytorch-image-models>`_
    that gives its maps of several strides.

    Args:
        model_name (str): Name for ``timm.create_model``.
        out_indices (Sequence[int], optional): Levels of timm's feature
            information to return, counted from 0; negative ones count from
            the end. Defaults to None, which is timm's choice.
        in_channels (int): Channels of the images. Defaults to 3.
        frozen_stages (int): -1 freezes nothing, 0 what comes before the
            first level, n what level n - 1 depends on. Defaults to -1.
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
            ``drop_path_rate``; ``img_size`` for networks of one size.

    Raises:
        RuntimeError: timm does not know the name.
        ValueError: An argument is outside its range.
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
        self.input_size = self._measure()
        names = {_flat(name) for name, _ in self.named_parameters()}
        self._still = names - self._reached(self.out_indices)
        if frozen_stages > 0:
            self._still |= self._reached([frozen_stages - 1])
        elif frozen_stages == 0:
            first = _flat(self.feature_info[0]['module']) + '_'
            names = self._reached([0])
            self._still |= {n for n in names if not n.startswith(first)}
        self._freeze()

    def _create(self, device: str = 'cpu', **kwargs) -> nn.Module:
        """Build the network, on ``'meta'`` for its names and shapes alone."""
        import timm  # only where it is asked for

        with torch.device(device):
            return timm.create_model(self.model_name, **self.options, **kwargs)

    def _on_meta(self, levels: Sequence[int]) -> tuple[nn.Module, Tensor]:
        """Return the network up to some levels and an image for it."""
        options = dict(features_only=True, out_indices=tuple(levels))
        network = self._create('meta', **options).eval()
        side = self.options.get('img_size')
        side = side or network.pretrained_cfg['input_size'][-2:]
        size = (side, side) if isinstance(side, int) else side
        shape = (1, self.options['in_chans'], *size)
        return network, torch.empty(shape, device='meta')

    def _measure(self) -> tuple[int, int] | None:
        """Measure strides; return the image size if it is the only one."""
        network, images = self._on_meta(self.out_indices)
        maps = _maps(network, images)
        for index, m in zip(self.out_indices, maps, strict=True):
            level = self.feature_info[index]
            stride = images.shape[3] / m.shape[3]
            # Unpadded convolutions lose a border, by which no stride changes.
            if not 0.7 < stride / level['reduction'] < 1.4:
                level['reduction'] = round(stride)
        try:
            _maps(network, torch.cat([images, images], dim=3))
        except (RuntimeError, AssertionError, ValueError):
            return tuple(images.shape[2:])
        return None

    @torch.enable_grad()
    def _reached(self, levels: Sequence[int]) -> set[str]:
        """Return the parameters that the maps of some levels depend on."""
        network, images = self._on_meta(levels)
        sum(m.sum() for m in _maps(network, images)).backward()
        parameters = network.named_parameters()
        return {_flat(name) for name, p in parameters if p.grad is not None}

    def _freeze(self) -> None:
        """Take frozen and unread parts out of training."""
        named = self.named_parameters()
        still = {p for name, p in named if _flat(name) in self._still}
        for parameter in still:
            parameter.requires_grad = False
        for module in self.modules():
            own = set(module.parameters())
            if own and own <= still:
                module.eval()
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

    def _load(self, tensors: dict[str, Tensor], source: str) -> None:
        """Fill the network, but for what it does not have of a whole one."""
        whole = self._create('meta')
        known = {_flat(name): name for name in whole.state_dict()}
        own = {_flat(name): name for name in self.state_dict()}
        tensors = translate_file(
            whole, {known.get(_flat(k), k): v for k, v in tensors.items()}
        )
        tensors = {
            own.get(_flat(name), name): value
            for name, value in tensors.items()
            if _flat(name) in own or _flat(name) not in known
        }
        load_weights(self, tensors, f'{source} ({self.model_name})')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute a map (batch, channels, H / stride, W / stride) per level in
        ``out_indices`` of images (batch, in_channels, H, W)."""
        if self.input_size not in (None, tuple(x.shape[2:])):
            raise ValueError(
                f'{self.model_name} is built for images of {self.input_size} '
                f'pixels, got {tuple(x.shape[2:])}. Pass img_size=(HEIGHT, '
                'WIDTH), and make all images that size.'
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
        groups = {_flat(name): layer for name, layer in groups.items()}
        names = [name for name, _ in self.named_parameters()]
        return {name: groups[_flat(name)] for name in names}


def _maps(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Run a ``features_only`` network; give NCHW maps."""
    maps = network(images)
    if str(getattr(network, 'output_fmt', '')).endswith('NHWC'):
        maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
    return tuple(maps)

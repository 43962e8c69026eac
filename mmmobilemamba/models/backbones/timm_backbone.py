"""Any network of timm as a backbone of the three libraries."""

from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checkpoints.checkpoint import load_weights, read_state_dict
from ...registry import MODELS
from ..arguments import (
    MAX_CHANNELS,
    check_bool,
    check_int,
    check_rate,
    check_size,
)
from ..part_configs import as_value_error, check_init_cfg
from .feature_backbone import FeatureBackbone, resolve_out_indices
from .timm_models import (
    check_timm_name,
    fitting_tensors,
    import_timm,
    inner_tensors,
    runs_at,
    timm_name,
    unread_parameters,
)
from .timm_positions import follow_sizes

# What create_model knows and this class has another way for.
_TAKEN = ('features_only', 'checkpoint_path', 'in_chans', 'num_classes')


def _check_options(options: dict) -> None:
    """Check what timm itself does not of the options that most take."""
    for name in ('drop_rate', 'drop_path_rate', 'proj_drop_rate'):
        # None is timm's way of leaving one out.
        if options.get(name) is not None:
            check_rate(name, options[name])
    if options.get('img_size') is not None:
        check_size('img_size', options['img_size'])


@MODELS.register_module()
class TIMMBackbone(FeatureBackbone):
    """A network of `timm <https://github.com/huggingface/pytorch-image-models>`_
    that gives its maps of several strides.

    Args:
        model_name (str): Name for ``timm.create_model``.
        out_indices (Sequence[int], optional): Levels of timm's feature
            information to return, counted from 0; negative ones count from
            the end. None takes those that timm takes. Defaults to None.
        in_channels (int): Channels of the picture. Defaults to 3.
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
        ImportError: timm is not installed.
        TypeError: An argument has the wrong type, or timm does not know it.
        ValueError: An argument is outside its range.

    Example:
        >>> import torch
        >>> from mmmobilemamba.models import TIMMBackbone
        >>> model = TIMMBackbone('mambaout_femto').eval()
        >>> model.out_strides
        [4, 8, 16, 32]
        >>> with torch.no_grad():
        ...     outs = model(torch.rand(1, 3, 64, 96))
        >>> for out in outs:
        ...     print(tuple(out.shape))
        (1, 48, 16, 24)
        (1, 96, 8, 12)
        (1, 192, 4, 6)
        (1, 288, 2, 3)
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
        check_init_cfg(init_cfg)
        super().__init__(init_cfg=init_cfg)
        check_timm_name(model_name)
        check_int('in_channels', in_channels, 1, MAX_CHANNELS)
        check_bool('norm_eval', norm_eval)
        check_bool('with_cp', with_cp)
        _check_options(kwargs)
        taken = [name for name in _TAKEN if name in kwargs]
        if taken:
            raise TypeError(
                f'{", ".join(taken)} cannot be passed on to timm; weights '
                'come by init_cfg, channels by in_channels.'
            )
        if not isinstance(pretrained, bool):
            raise TypeError(
                f'pretrained must be True or False, got {pretrained!r}; a '
                "file goes to init_cfg=dict(type='Pretrained', "
                'checkpoint=PATH).'
            )
        self.model_name = model_name
        self.options = dict(in_chans=in_channels, **kwargs)
        levels = self._shapes_only(features_only=True).feature_info
        self.num_stages = len(levels.info)
        if out_indices is None:
            out_indices = levels.out_indices
        self.out_indices = resolve_out_indices(out_indices, self.num_stages)
        check_int('frozen_stages', frozen_stages, -1, self.num_stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.pretrained = pretrained
        self.feature_info = [
            {key: level[key] for key in ('num_chs', 'reduction', 'module')}
            for level in levels.info
        ]
        self.timm_model = self._create(**self._features)
        follow_sizes(self.timm_model)
        self._depths = None
        self._ends = self._stage_ends()
        if frozen_stages >= 0 and None in self._ends[: frozen_stages + 1]:
            raise ValueError(
                f'{model_name} does not keep its stages in modules of their '
                f'own; frozen_stages must be -1, got {frozen_stages}.'
            )
        self.input_size = None
        shape = self._probe_shape()
        if not runs_at(self, shape):
            raise ValueError(
                f'{model_name} with {self.options} does not take pictures of '
                f'{shape[2]}x{shape[3]} pixels.'
            )
        self._unread = unread_parameters(self, shape)
        if self._is_made_for(shape):
            self.input_size = shape[2:]
        if with_cp:
            # Not before: torch 2.4 cannot recompute what is only shapes.
            self.timm_model.set_grad_checkpointing(True)
        self._freeze()

    @property
    def _features(self) -> dict:
        return dict(features_only=True, out_indices=self.out_indices)

    def _create(self, **kwargs) -> nn.Module:
        with as_value_error(
            f'timm cannot build {self.model_name} with {self.options} and '
            f'{kwargs}'
        ):
            return import_timm().create_model(
                self.model_name, **self.options, **kwargs
            )

    def _shapes_only(self, **kwargs) -> nn.Module:
        """Build without memory, for names and shapes."""
        with torch.device('meta'):
            return self._create(**kwargs)

    def _probe_shape(self) -> tuple[int, ...]:
        """Return a shape that the network takes."""
        cfg = import_timm().get_pretrained_cfg(self.model_name)
        side = self.options.get('img_size') or 4 * max(
            level['reduction'] for level in self.feature_info
        )
        if cfg.fixed_input_size and 'img_size' not in self.options:
            side = cfg.input_size[-2:]
        sides = (side, side) if isinstance(side, int) else tuple(side)
        return (1, self.options['in_chans'], *sides)

    def _is_made_for(self, shape: tuple[int, ...]) -> bool:
        """Tell whether the network takes pictures of this size alone."""
        cfg = import_timm().get_pretrained_cfg(self.model_name)
        # Some of those that timm marks as fixed take others none the less.
        return cfg.fixed_input_size and not runs_at(
            self, (*shape[:3], 2 * shape[3])
        )

    def _stage_ends(self) -> list[int | None]:
        """Return where each stage ends among the modules, the stem first.

        timm registers modules in the order in which they run. None stands
        for a stage that is no module.
        """
        known = {name for name, _ in self._shapes_only().named_modules()}
        names = [
            timm_name(name, known)
            for name, _ in self.timm_model.named_modules()
        ]
        ends: list[int | None] = []
        for stage, level in enumerate(self.feature_info):
            inside = [
                index
                for index, name in enumerate(names)
                if f'{name}.'.startswith(f'{level["module"]}.')
            ]
            if stage == 0:
                ends.append(inside[0] if inside else None)
            if inside:
                ends.append(inside[-1] + 1)
            else:
                # Stages behind the last one that is read may not be there.
                behind = stage > self.out_indices[-1]
                ends.append(len(names) if behind else None)
        return ends

    def _freeze(self) -> None:
        """Take frozen and unread parts out of training."""
        for name, parameter in self.named_parameters():
            if name in self._unread:
                parameter.requires_grad = False
        if self.frozen_stages < 0:
            return
        # One by one, since what holds a frozen part may hold others too.
        modules = list(self.timm_model.modules())
        for module in modules[: self._ends[self.frozen_stages]]:
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = False

    def init_weights(self) -> None:
        """Initialise as configured; a pretrained file has to fit."""
        init_cfg = self.init_cfg
        if isinstance(init_cfg, dict) and init_cfg['type'] == 'Pretrained':
            self._load(init_cfg['checkpoint'], init_cfg.get('prefix'))
        elif init_cfg:
            super().init_weights()
        elif self.pretrained:
            fetched = self._create(pretrained=True, **self._features)
            self.timm_model.load_state_dict(fetched.state_dict())
        # timm has drawn its own initial values already.
        self._is_init = True

    def _load(self, path: str, prefix: str | None) -> None:
        """Fill the network from a file, or say why it does not fit."""
        tensors = inner_tensors(read_state_dict(path), prefix)
        tensors = fitting_tensors(self, self._shapes_only(), tensors)
        load_weights(self, tensors, f'{path} ({self.model_name})')
        print_log(
            f'Loaded {len(tensors)} tensors of {self.model_name} from {path}.',
            logger='current',
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the levels in ``out_indices``.

        Args:
            x (Tensor): Pictures (batch, in_channels, H, W).

        Returns:
            tuple[Tensor]: A map (batch, channels, H / stride, W / stride)
            per level, whatever layout the network computes in.

        Raises:
            ValueError: The network is built for pictures of another size.
        """
        if self.input_size and tuple(x.shape[2:]) != self.input_size:
            height, width = x.shape[2:]
            raise ValueError(
                f'{self.model_name} is built for pictures of '
                f'{self.input_size[0]}x{self.input_size[1]} pixels, got '
                f'{height}x{width}. Pass img_size=(HEIGHT, WIDTH), and make '
                'all pictures that size.'
            )
        maps = self.timm_model(x)
        if str(getattr(self.timm_model, 'output_fmt', '')).endswith('NHWC'):
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return tuple(maps)

    def switch_to_deploy(self) -> None:
        """Fuse what timm can fuse; a second call does nothing."""
        from timm.utils.model import reparameterize_model

        self.timm_model = reparameterize_model(self.timm_model, inplace=True)

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Return the depth of a parameter for layer-wise learning rates.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): Prefix of the backbone's names. Defaults to ''.

        Returns:
            tuple[int, int]: The layer as timm groups them, 0 for the stem,
            and the number of layers, in which whatever follows the backbone
            is the last.
        """
        if self._depths is None:
            self._depths = self._layer_depths()
        num_layers = max(self._depths.values()) + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix) or name not in self._depths:
            return num_layers - 1, num_layers
        return self._depths[name], num_layers

    def _layer_depths(self) -> dict[str, int]:
        from timm.models import group_parameters

        whole = self._shapes_only()
        if hasattr(whole, 'group_matcher'):
            groups = group_parameters(
                whole, whole.group_matcher(coarse=False), reverse=True
            )
            return {
                name: groups[timm_name(name, groups)]
                for name, _ in self.named_parameters()
            }
        stages = {}
        for index, module in enumerate(self.timm_model.modules()):
            stage = sum(index >= (end or 0) for end in self._ends[:-1])
            for parameter in module.parameters(recurse=False):
                stages[parameter] = stage
        return {name: stages[p] for name, p in self.named_parameters()}

"""What the backbones with stages share."""

from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...checkpoints.checkpoint import backbone_tensors, read_state_dict


def track_once(module: nn.Module) -> None:
    """Let recomputation leave the averages of BatchNorm alone.

    ``torch.utils.checkpoint`` runs a block again in the backward pass, which
    would update them a second time. A second call does nothing.
    """
    for norm in module.modules():
        tracks = isinstance(norm, _BatchNorm) and norm.track_running_stats
        if tracks and _hold not in norm._forward_pre_hooks.values():
            norm.register_forward_pre_hook(_hold)
            norm.register_forward_hook(_release, always_call=True)


def _hold(norm: nn.Module, *_) -> None:
    # The backward pass has a number. The operator has to stay the same one,
    # or it would save other tensors than it did in the forward pass.
    if not torch.compiler.is_compiling() and (
        torch._C._current_graph_task_id() != -1
    ):
        norm.held = norm.momentum, norm.num_batches_tracked
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone()


def _release(norm: nn.Module, *_) -> None:
    if held := norm.__dict__.pop('held', None):
        norm.momentum, norm.num_batches_tracked = held


class FeatureBackbone(BaseModule):
    """Base of backbones that give out the maps of their stages.

    A subclass has ``norm_eval``, ``_load(tensors, source)``, which fills it
    with what has to fit, ``_freeze()``, which takes frozen and unread parts
    out of training, and ``_depths``, the layer of each parameter by name.
    """

    def _set_stages(
        self,
        feature_info: Sequence[dict],
        out_indices: int | Sequence[int],
        frozen_stages: int,
    ) -> None:
        """Check and keep what is known of the stages, channels and strides as
        timm names them, and what is asked of them."""
        count = len(feature_info)
        given = [out_indices] if isinstance(out_indices, int) else out_indices
        known = [i % count for i in given if i in range(-count, count)]
        if not known or known != sorted({*known}) or len(known) != len(given):
            raise ValueError(
                f'out_indices must be among {-count} to {count - 1}, each '
                f'stage once and in rising order, got {out_indices!r}.'
            )
        if frozen_stages not in range(-1, count + 1):
            raise ValueError(
                f'frozen_stages must be -1 to {count}, got {frozen_stages!r}.'
            )
        self.feature_info = [dict(stage) for stage in feature_info]
        self.out_indices = tuple(known)
        self.frozen_stages = frozen_stages

    @property
    def out_channels(self) -> list[int]:
        """Channels of the returned maps."""
        return [self.feature_info[i]['num_chs'] for i in self.out_indices]

    @property
    def out_strides(self) -> list[int]:
        """Strides of the returned maps in pixels."""
        return [self.feature_info[i]['reduction'] for i in self.out_indices]

    def init_weights(self) -> None:
        """Initialise as configured; a pretrained file has to fit."""
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
        files = ('Pretrained', PretrainedInit)
        cfg = next((cfg for cfg in cfgs if cfg['type'] in files), None)
        if cfg:  # takes the place of all others
            path, prefix = cfg['checkpoint'], cfg.get('prefix')
            tensors = read_state_dict(path)
            self._load(backbone_tensors(tensors, prefix, heads=True), path)
            print_log(f'Loaded {type(self).__name__} from {path}.', 'current')
            self._is_init = True
        else:
            super().init_weights()

    def train(self, mode: bool = True) -> 'FeatureBackbone':
        """Set the mode, leaving frozen parts and norms as configured."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Return a parameter's layer, 0 for the stem, and the number of
        layers, in which whatever follows the backbone is the last.

        ``prefix`` is what the names of the backbone begin with.
        """
        depths = {f'{prefix}{name}': n for name, n in self._depths.items()}
        last = max(depths.values()) + 1
        return depths.get(param_name, last), last + 1

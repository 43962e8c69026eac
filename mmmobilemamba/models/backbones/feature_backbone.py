"""What the backbones with stages share."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def resolve_out_indices(
    out_indices: int | Sequence[int], num_stages: int
) -> tuple[int, ...]:
    """Return the stages to give out, counted from 0, or raise ValueError.

    Args:
        out_indices (int or Sequence[int]): Stages in rising order; negative
            ones count from the end.
        num_stages (int): Number of stages there are.
    """
    indices = (out_indices,) if isinstance(out_indices, int) else out_indices
    known = range(-num_stages, num_stages)
    positive = [i % num_stages for i in indices if i in known]
    if len(positive) != len(indices) or sorted({*positive}) != positive:
        raise ValueError(
            f'out_indices must be among {-num_stages} to {num_stages - 1}, '
            f'each stage once and in rising order, got {out_indices!r}.'
        )
    return tuple(positive)


def track_once(module: nn.Module) -> None:
    """Let recomputation leave the averages of BatchNorm alone.

    ``torch.utils.checkpoint`` runs a block again in the backward pass, which
    would update them a second time. A second call does nothing.
    """
    for norm in module.modules():
        if (
            isinstance(norm, _BatchNorm)
            and norm.track_running_stats
            and _hold not in norm._forward_pre_hooks.values()
        ):
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
    if 'held' in norm.__dict__:
        norm.momentum, norm.num_batches_tracked = norm.__dict__.pop('held')


class FeatureBackbone(BaseModule):
    """Base of backbones that give out the maps of their stages.

    A subclass has ``out_indices``, ``feature_info`` (a dict with ``num_chs``
    and ``reduction`` per stage), ``norm_eval``, and ``_freeze()``, which takes
    frozen and unread parts out of training.
    """

    @property
    def out_channels(self) -> list[int]:
        """Channels of the returned maps."""
        return [self.feature_info[i]['num_chs'] for i in self.out_indices]

    @property
    def out_strides(self) -> list[int]:
        """Strides of the returned maps in pixels."""
        return [self.feature_info[i]['reduction'] for i in self.out_indices]

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

"""What the backbones with stages share."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch.nn.modules.batchnorm import _BatchNorm

from ..arguments import check_ints, is_int


def resolve_out_indices(
    out_indices: Sequence[int], num_stages: int
) -> tuple[int, ...]:
    """Return the stages to give out, counted from 0.

    Args:
        out_indices (Sequence[int]): Stages in rising order; negative ones
            count from the end.
        num_stages (int): Number of stages there are.

    Returns:
        tuple[int]: The same stages without negative numbers.

    Raises:
        TypeError: It is no sequence of ints.
        ValueError: A stage does not exist, or they do not rise.
    """
    if is_int(out_indices):
        out_indices = (out_indices,)
    indices = check_ints(
        'out_indices', out_indices, -num_stages, num_stages - 1
    )
    positive = tuple(int(index) % num_stages for index in indices)
    if sorted(set(positive)) != list(positive):
        raise ValueError(
            f'out_indices={out_indices!r} must name each stage once, in '
            'rising order.'
        )
    return positive


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

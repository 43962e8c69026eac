"""What an operator costs, in multiply-accumulates (MACs).

A convolution or matrix product costs its multiply-accumulates, a
normalisation one per element (its scale and shift, which disappear when a
network is fused), a bilinear interpolation four per element of its result.
Activations, sums, pooling and biases cost nothing. The scan has VMamba's rule.
Of the definitions in use this is the one that comes closest to the figures
published for MobileMamba.

:class:`torch.utils.flop_counter.FlopCounterMode` does the counting. It counts
two for a multiply-accumulate, so the rules below return twice the MACs.
"""

from collections.abc import Callable
from math import prod

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
)

aten = torch.ops.aten


def scan_macs(
    tokens: int, channels: int, state: int, directions: int, rank: int = 0
) -> int:
    """Return the MACs of a selective scan.

    Args:
        tokens (int): Tokens, over the whole batch.
        channels (int): Inner channels of one direction.
        state (int): States per channel.
        directions (int): Directions.
        rank (int): Rows from which the step sizes are made within the
            operator; 0 where they are given. Defaults to 0.

    Returns:
        int: 9 per state, 1 for the skip weight and ``rank`` for the step
        size, per token, channel and direction.

    Source: the rule of VMamba (arXiv:2401.10166) and its successors.
    """
    return directions * tokens * channels * (9 * state + 1 + rank)


def haar_macs(
    batch: int, channels: int, height: int, width: int, levels: int = 1
) -> int:
    """Return the MACs of the Haar transform and its inverse.

    They are counted as the 2x2 depthwise convolutions that published figures
    count, however they are computed.

    Args:
        batch (int): Pictures.
        channels (int): Channels.
        height (int): Height in pixels; an odd one is padded.
        width (int): Width in pixels.
        levels (int): Levels, each on the low band of the one before.
            Defaults to 1.

    Returns:
        int: 8 per channel and pixel of every level.
    """
    macs = 0
    for _ in range(levels):
        height, width = (height + 1) // 2, (width + 1) // 2
        macs += 8 * batch * channels * 4 * height * width
    return macs


def _per_element(weight: int) -> Callable:
    """Return a rule that counts ``weight`` per element of the result."""

    def count(*shapes, out_shape=None, **kwargs) -> int:
        # Normalisations return their statistics behind the result.
        if not isinstance(out_shape, torch.Size):
            out_shape = out_shape[0]
        return 2 * weight * prod(out_shape)

    return count


def _matrix_vector(
    matrix_shape, vector_shape, *args, out_shape=None, **kwargs
) -> int:
    return 2 * prod(matrix_shape)


def _attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
    scores = prod(query[:-1]) * key[-2]
    return 2 * scores * (query[-1] + value[-1])


_NORMS = (
    'native_batch_norm',
    'cudnn_batch_norm',
    'miopen_batch_norm',
    '_native_batch_norm_legit',
    '_native_batch_norm_legit_no_training',
    '_batch_norm_no_update',
    'native_layer_norm',
    'native_group_norm',
)
_RULES = {
    **dict.fromkeys(_NORMS, _per_element(1)),
    'upsample_bilinear2d': _per_element(4),
    'mv': _matrix_vector,
    'dot': _matrix_vector,
    '_scaled_dot_product_flash_attention_for_cpu': _attention,
    '_scaled_dot_product_fused_attention_overrideable': _attention,
}


# What a count calls the operators of torch.
_KINDS = {
    **dict.fromkeys(_NORMS, 'normalisation'),
    **dict.fromkeys(
        ('mm', 'addmm', 'bmm', 'baddbmm', 'mv', 'dot'), 'matrix product'
    ),
    'upsample_bilinear2d': 'interpolation',
}


def counting_rules() -> dict:
    """Return the rules that torch's own counter lacks, by operator.

    Returns:
        dict: Formulas in the form that ``FlopCounterMode`` takes.
    """
    rules = {}
    for name, rule in _RULES.items():
        op = getattr(aten, name, None)  # some came with later releases
        if op is not None and op not in flop_registry:
            rules[op] = rule
    return rules


class MacCounter(FlopCounterMode):
    """Count MACs by module and operator.

    Attributes:
        used (set[int]): Identities of all tensors that operators received.
    """

    def __init__(self):
        super().__init__(display=False, custom_mapping=counting_rules())
        self.used: set[int] = set()

    def add(self, name: str, macs: int) -> None:
        """Count work that is no operator of torch.

        Args:
            name (str): What to call it.
            macs (int): Its multiply-accumulates.
        """
        for module in set(self.mod_tracker.parents):
            self.flop_counts[module][name] += 2 * macs

    def _count_flops(self, func_packet, out, args, kwargs):
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                self.used.add(id(value))
        return super()._count_flops(func_packet, out, args, kwargs)

    def macs(self) -> dict[str, dict[str, int]]:
        """Return the MACs per module and operator.

        Returns:
            dict[str, dict[str, int]]: Counts by name of the module, ``''``
            for the whole, and operator.
        """
        result = {}
        for module, counts in self.flop_counts.items():
            # The tracker's names start with the type of the whole model.
            name = '' if module == 'Global' else module.partition('.')[2]
            if not name and module != 'Global':
                continue
            kinds = result[name] = {}
            for op, count in counts.items():
                kind = str(op).removeprefix('aten.')
                if 'attention' in kind:
                    kind = 'attention'
                kind = _KINDS.get(kind, kind)
                kinds[kind] = kinds.get(kind, 0) + count // 2
        return result

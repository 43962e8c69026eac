"""Names of published checkpoints and ours, both ways.

Only the backbone and the classification head are named differently; necks and
heads of the dense models carry the host libraries' names in both. The fixed
Haar filters that published files hold have no counterpart here: they are
checked on the way in and made on the way out.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

_CONV_BN = {'c.': 'conv.', 'bn.': 'bn.'}


def _nest(outer: dict[str, str], inner: dict[str, str]) -> dict[str, str]:
    return {a + c: b + d for a, b in outer.items() for c, d in inner.items()}


_FFN = _nest({'pw1.': 'pw1.', 'pw2.': 'pw2.'}, _CONV_BN)

_SS2D = {
    **_nest({'in_proj.': 'in_proj.', 'out_proj.': 'out_proj.'}, _CONV_BN),
    'conv2d.': 'dwconv.',
    'x_proj_weight': 'x_proj_weight',
    'dt_projs_weight': 'dt_proj_weight',
    'dt_projs_bias': 'dt_proj_bias',
    'A_logs': 'A_log',
    'Ds': 'D',
    'out_norm.': 'out_norm.',
}

_BLOCK = {
    **_nest({'dw0.m.': 'dw0.', 'dw1.m.': 'dw1.'}, _CONV_BN),
    **_nest({'ffn0.m.': 'ffn0.', 'ffn1.m.': 'ffn1.'}, _FFN),
    'mixer.m.attn.local_op.dwconv3x3.': 'mixer.local_path.0.dw.conv.',
    'mixer.m.attn.local_op.bn1.': 'mixer.local_path.0.dw.bn.',
    'mixer.m.attn.local_op.dwconv1x1.': 'mixer.local_path.0.scale.conv.',
    'mixer.m.attn.local_op.bn2.': 'mixer.local_path.0.scale.bn.',
    **_nest(
        {'mixer.m.attn.global_op.global_atten.': 'mixer.global_path.ss2d.'},
        _SS2D,
    ),
    'mixer.m.attn.global_op.base_scale.weight': (
        'mixer.global_path.base_scale'
    ),
    'mixer.m.attn.global_op.wavelet_convs.0.weight': (
        'mixer.global_path.wavelet_convs.0.weight'
    ),
    'mixer.m.attn.global_op.wavelet_scale.0.weight': (
        'mixer.global_path.wavelet_scales.0'
    ),
    **_nest({'mixer.m.attn.proj.1.': 'mixer.proj.'}, _CONV_BN),
}

_DOWNSAMPLE = {
    **_nest({'0.0.m.': 'dw0.', '2.0.m.': 'dw1.'}, _CONV_BN),
    **_nest({'0.1.m.': 'ffn0.', '2.1.m.': 'ffn1.'}, _FFN),
    **_nest(
        {
            '1.conv1.': 'expand.',
            '1.conv2.': 'dwconv.',
            '1.conv3.': 'project.',
        },
        _CONV_BN,
    ),
    '1.se.': 'se.',
}

_STEM = _nest({f'{2 * i}.': f'{i}.' for i in range(4)}, _CONV_BN)

_HEAD = {'bn.': 'bn.', 'l.': 'fc.'}

# A stage after the first begins with its three-part transition.
_TRANSITION_PARTS = 3

_PUBLISHED_STEM = re.compile(r'(backbone\.)?patch_embed\.\d+\.c\.')
_FILTER = re.compile(r'.*global_op\.i?wt_filter$')
_MAX_FILTERS = 1 << 20


def haar_filters(channels: int) -> Tensor:
    """Return the transform as the filter bank that published files hold.

    Args:
        channels (int): Channels of the map to transform.

    Returns:
        Tensor: Filters (4 * channels, 1, 2, 2), float32; the inverse
        transform has the same ones.
    """
    low, high = torch.tensor([0.5, 0.5]), torch.tensor([0.5, -0.5])
    bank = torch.stack(
        [
            2 * torch.outer(along_height, along_width)
            for along_width in (low, high)
            for along_height in (low, high)
        ]
    )
    return bank.repeat(channels, 1, 1)[:, None]


def _swap(name: str, table: dict[str, str]) -> str | None:
    """Replace the prefix of ``name`` that the table holds."""
    for old, new in table.items():
        if name.startswith(old) if old.endswith('.') else name == old:
            return new + name[len(old) :]
    return None


def _swap_back(name: str, table: dict[str, str]) -> str | None:
    return _swap(name, {new: old for old, new in table.items()})


def _backbone_from_published(name: str) -> str | None:
    if name.startswith('patch_embed.'):
        rest = _swap(name.removeprefix('patch_embed.'), _STEM)
        return rest and f'stem.{rest}'
    match = re.match(r'blocks([123])\.(\d+)\.(.*)', name)
    if match is None:
        return None
    stage, index, rest = int(match[1]) - 1, int(match[2]), match[3]
    offset = _TRANSITION_PARTS if stage else 0
    if index < offset:
        rest = _swap(f'{index}.{rest}', _DOWNSAMPLE)
        return rest and f'stages.{stage}.downsample.{rest}'
    rest = _swap(rest, _BLOCK)
    return rest and f'stages.{stage}.blocks.{index - offset}.{rest}'


def _backbone_to_published(name: str) -> str | None:
    if name.startswith('stem.'):
        rest = _swap_back(name.removeprefix('stem.'), _STEM)
        return rest and f'patch_embed.{rest}'
    match = re.match(
        r'stages\.([012])\.(downsample|blocks\.(\d+))\.(.*)', name
    )
    if match is None:
        return None
    stage, block, rest = int(match[1]), match[3], match[4]
    if block is None:
        rest = _swap_back(rest, _DOWNSAMPLE)
        return rest and f'blocks{stage + 1}.{rest}'
    index = int(block) + (_TRANSITION_PARTS if stage else 0)
    rest = _swap_back(rest, _BLOCK)
    return rest and f'blocks{stage + 1}.{index}.{rest}'


def is_published(state_dict: Iterable[str]) -> bool:
    """Tell whether a state dict has the names of a published file.

    Args:
        state_dict (Iterable[str]): State dict, or its names.

    Returns:
        bool: Whether a stem is there by its published name.
    """
    # Swin, PVT and EfficientViT have other things called patch_embed.
    return any(_PUBLISHED_STEM.match(name) for name in state_dict)


def is_haar_filter(name: str) -> bool:
    """Tell whether a published name is one of the fixed Haar filters."""
    return _FILTER.match(name) is not None


def from_published(name: str) -> str:
    """Return our name of a published tensor.

    Args:
        name (str): Name as published: of a bare backbone with or without its
            classification head, or of a dense model, where the backbone
            carries the prefix ``backbone.``.

    Returns:
        str: Our name. Names of necks and dense heads stay as they are.

    Raises:
        KeyError: The name is a Haar filter, or none of a published backbone.
    """
    prefix = 'backbone.' if name.startswith('backbone.') else ''
    bare = name.removeprefix(prefix)
    ours = _backbone_from_published(bare)
    if ours is not None:
        return prefix + ours
    if not prefix and bare.startswith(('head.bn.', 'head.l.')):
        return f'head.{_swap(bare.removeprefix("head."), _HEAD)}'
    if prefix or bare.startswith(('patch_embed.', 'blocks', 'head.')):
        raise KeyError(f'{name!r} is no name of a published MobileMamba.')
    return name


def to_published(name: str) -> str:
    """Return the published name of a tensor of ours.

    Args:
        name (str): Our name; backbone names with or without ``backbone.``.

    Returns:
        str: The published name.

    Raises:
        KeyError: The name is none that a published file can hold, such as
            the second part of a split local path.
    """
    prefix = 'backbone.' if name.startswith('backbone.') else ''
    bare = name.removeprefix(prefix)
    published = _backbone_to_published(bare)
    if published is not None:
        return prefix + published
    if not prefix and bare.startswith(('head.bn.', 'head.fc.')):
        return f'head.{_swap_back(bare.removeprefix("head."), _HEAD)}'
    if prefix or bare.startswith(('stem.', 'stages.', 'head.')):
        raise KeyError(f'{name!r} has no counterpart in published files.')
    return name


def state_dict_from_published(
    state_dict: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename a published state dict; check and drop its Haar filters.

    Args:
        state_dict (dict[str, Tensor]): Tensors by published name.

    Returns:
        dict[str, Tensor]: The same tensors by our name.

    Raises:
        KeyError: A name is unknown.
        ValueError: A Haar filter differs from ours, so that the weights were
            trained on another transform.
    """
    ours = {}
    for name, tensor in state_dict.items():
        if is_haar_filter(name):
            _check_filter(name, tensor)
        else:
            ours[from_published(name)] = tensor
    return ours


def state_dict_to_published(
    state_dict: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename a state dict of ours to published names, filters included.

    Args:
        state_dict (dict[str, Tensor]): Tensors by our name.

    Returns:
        dict[str, Tensor]: Tensors by published name.

    Raises:
        KeyError: A name has no published counterpart.
    """
    published = {}
    for name, tensor in state_dict.items():
        published[to_published(name)] = tensor
        if name.endswith('global_path.base_scale'):
            prefix = to_published(name).removesuffix('base_scale.weight')
            for kind in ('wt_filter', 'iwt_filter'):
                published[prefix + kind] = haar_filters(tensor.numel())
    return published


def _check_filter(name: str, tensor: Tensor) -> None:
    # The shape first: memory for a bank of any size is not to be had.
    shape = tuple(tensor.shape)
    fits = len(shape) == 4 and shape[0] % 4 == 0 and shape[1:] == (1, 2, 2)
    fits = fits and 0 < shape[0] <= _MAX_FILTERS
    if not fits or not torch.allclose(
        tensor.detach().cpu().float(), haar_filters(shape[0] // 4), atol=1e-6
    ):
        raise ValueError(
            f'{name} of shape {shape} is not the Haar filter '
            'bank that this network computes with; the file belongs to '
            'another wavelet or another order of its subbands.'
        )

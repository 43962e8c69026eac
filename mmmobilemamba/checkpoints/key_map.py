"""Names of published checkpoints and ours, both ways.

Only the backbone and the classification head are named differently; necks and
heads of the dense models carry the host libraries' names in both. The fixed
Haar filters that published files hold have no counterpart here: they are
checked on the way in and made on the way out.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_SCAN = 'mixer.m.attn.global_op.global_atten.'
_OUR_SCAN = 'mixer.global_path.ss2d.'
# Published -> ours within a block; the first that is found counts.
_BLOCK = (
    ('dw0.m.', 'dw0.'),
    ('dw1.m.', 'dw1.'),
    ('ffn0.m.', 'ffn0.'),
    ('ffn1.m.', 'ffn1.'),
    ('mixer.m.attn.local_op.dwconv3x3.', 'mixer.local_path.0.dw.conv.'),
    ('mixer.m.attn.local_op.bn1.', 'mixer.local_path.0.dw.bn.'),
    ('mixer.m.attn.local_op.dwconv1x1.', 'mixer.local_path.0.scale.conv.'),
    ('mixer.m.attn.local_op.bn2.', 'mixer.local_path.0.scale.bn.'),
    (f'{_SCAN}conv2d.', f'{_OUR_SCAN}dwconv.'),
    (f'{_SCAN}dt_projs_', f'{_OUR_SCAN}dt_proj_'),
    (f'{_SCAN}A_logs', f'{_OUR_SCAN}A_log'),
    (f'{_SCAN}Ds', f'{_OUR_SCAN}D'),
    (_SCAN, _OUR_SCAN),
    (
        'mixer.m.attn.global_op.base_scale.weight',
        'mixer.global_path.base_scale',
    ),
    (
        'mixer.m.attn.global_op.wavelet_scale.0.weight',
        'mixer.global_path.wavelet_scales.0',
    ),
    ('mixer.m.attn.global_op.', 'mixer.global_path.'),
    ('mixer.m.attn.proj.1.', 'mixer.proj.'),
)
# The three parts before the blocks of a stage after the first.
_DOWNSAMPLE = (
    ('0.0.m.', 'dw0.'),
    ('0.1.m.', 'ffn0.'),
    ('1.conv1.', 'expand.'),
    ('1.conv2.', 'dwconv.'),
    ('1.conv3.', 'project.'),
    ('1.se.', 'se.'),
    ('2.0.m.', 'dw1.'),
    ('2.1.m.', 'ffn1.'),
)
_PARTS_BEFORE = 3

_STEM = re.compile(r'(backbone\.)?patch_embed\.(\d+)\.(c|bn)\.(.*)')
_OUR_STEM = re.compile(r'(backbone\.)?stem\.(\d+)\.(.*)')
_STAGE = re.compile(r'(backbone\.)?blocks([123])\.(\d+)\.(.*)')
_OUR_STAGE = re.compile(
    r'(backbone\.)?stages\.([012])\.(downsample|blocks\.(\d+))\.(.*)'
)
_FILTER = re.compile(r'.*global_op\.i?wt_filter$')
_MAX_FILTERS = 1 << 20


def is_published(state_dict: Iterable[str]) -> bool:
    """Tell whether a state dict, or its names, are of a published file."""
    # Swin, PVT and EfficientViT have other things called patch_embed.
    return any(_STEM.match(name) for name in state_dict)


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
        str: Our name. Names that no published backbone has stay as they are.
    """
    if match := _STEM.match(name):
        name = f'{match[1] or ""}stem.{int(match[2]) // 2}.{match[3]}.'
        return _conv(name + match[4])
    if match := _STAGE.match(name):
        stage, index, rest = int(match[2]) - 1, int(match[3]), match[4]
        before = _PARTS_BEFORE if stage else 0
        if index < before:
            rest = _replace(f'{index}.{rest}', _DOWNSAMPLE)
            place = 'downsample'
        else:
            rest, place = _replace(rest, _BLOCK), f'blocks.{index - before}'
        return _conv(f'{match[1] or ""}stages.{stage}.{place}.{rest}')
    return re.sub(r'^head\.l\.', 'head.fc.', name)


def to_published(name: str) -> str:
    """Return the published name of a tensor of ours.

    Args:
        name (str): Our name; backbone names with or without ``backbone.``.

    Returns:
        str: The published name.
    """
    if match := _OUR_STEM.match(name):
        name = f'{match[1] or ""}patch_embed.{2 * int(match[2])}.{match[3]}'
        return name.replace('.conv.', '.c.')
    if match := _OUR_STAGE.match(name):
        stage, index, rest = int(match[2]), match[4], match[5]
        if index is None:
            place = _replace(rest, [pair[::-1] for pair in _DOWNSAMPLE])
        else:
            rest = _replace(rest, [pair[::-1] for pair in _BLOCK])
            place = f'{int(index) + (_PARTS_BEFORE if stage else 0)}.{rest}'
        name = f'{match[1] or ""}blocks{stage + 1}.{place}'
        return name.replace('.conv.', '.c.')
    return re.sub(r'^head\.fc\.', 'head.l.', name)


def state_dict_from_published(
    state_dict: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename a published state dict; check and drop its Haar filters.

    Args:
        state_dict (dict[str, Tensor]): Tensors by published name.

    Returns:
        dict[str, Tensor]: The same tensors by our name.

    Raises:
        ValueError: A Haar filter differs from ours, so that the weights were
            trained on another transform.
    """
    for name in filter(is_haar_filter, state_dict):
        _check_filter(name, state_dict[name])
    return {
        from_published(name): tensor
        for name, tensor in state_dict.items()
        if not is_haar_filter(name)
    }


def state_dict_to_published(
    state_dict: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Rename a state dict of ours to published names, filters included.

    Args:
        state_dict (dict[str, Tensor]): Tensors by our name.

    Returns:
        dict[str, Tensor]: Tensors by published name.
    """
    published = {}
    for name, tensor in state_dict.items():
        published[to_published(name)] = tensor
        if name.endswith('global_path.base_scale'):
            prefix = to_published(name).removesuffix('base_scale.weight')
            for kind in ('wt_filter', 'iwt_filter'):
                published[prefix + kind] = haar_filters(tensor.numel())
    return published


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


def _replace(name: str, table: Sequence[tuple[str, str]]) -> str:
    """Replace the first prefix of the table that the name has."""
    for old, new in table:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _conv(name: str) -> str:
    return name.replace('.c.', '.conv.')


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

"""Names of published checkpoints and ours.

Only the backbone and the classification head are named differently; necks and
heads of the dense models carry the host libraries' names in both. The fixed
Haar filters that published files hold have no counterpart here: they are
checked and dropped.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Published -> ours, wherever it stands in a stage's name.
_PARTS = {
    '.m.': '.',
    '.c.': '.conv.',
    'attn.local_op.dwconv3x3': 'local_path.0.dw.conv',
    'attn.local_op.bn1': 'local_path.0.dw.bn',
    'attn.local_op.dwconv1x1': 'local_path.0.scale.conv',
    'attn.local_op.bn2': 'local_path.0.scale.bn',
    'attn.global_op': 'global_path',
    'attn.proj.1': 'proj',
    'base_scale.weight': 'base_scale',
    'wavelet_scale.0.weight': 'wavelet_scales.0',
    'global_atten': 'ss2d',
    'ss2d.conv2d': 'ss2d.dwconv',
    'ss2d.dt_projs_': 'ss2d.dt_proj_',
    'ss2d.A_logs': 'ss2d.A_log',
    'ss2d.Ds': 'ss2d.D',
}
# The three parts before the blocks of a stage after the first.
_DOWNSAMPLE = {
    '0.0.': 'dw0.',
    '0.1.': 'ffn0.',
    '1.conv1.': 'expand.',
    '1.conv2.': 'dwconv.',
    '1.conv3.': 'project.',
    '1.se.': 'se.',
    '2.0.': 'dw1.',
    '2.1.': 'ffn1.',
}

_STEM = re.compile(r'(backbone\.)?patch_embed\.(\d+)\.((?:c|bn)\..*)')
_STAGE = re.compile(r'(backbone\.)?blocks([123])\.(\d+)\.(.*)')
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

    Those of a dense model's backbone begin with ``backbone.``; names that no
    published backbone has stay as they are.
    """
    if match := _STEM.match(name):
        prefix, index, rest = match.groups('')
        rest = re.sub(r'^c\.', 'conv.', rest)
        return f'{prefix}stem.{int(index) // 2}.{rest}'
    if match := _STAGE.match(name):
        prefix, stage, index, rest = match.groups('')
        stage, index = int(stage) - 1, int(index)
        if stage and index < 3:
            rest = f'downsample.{index}.{rest}'
            for old, new in _DOWNSAMPLE.items():
                rest = rest.replace(f'downsample.{old}', f'downsample.{new}')
        else:
            rest = f'blocks.{index - 3 if stage else index}.{rest}'
        for old, new in _PARTS.items():
            rest = rest.replace(old, new)
        return f'{prefix}stages.{stage}.{rest}'
    return re.sub(r'^head\.l\.', 'head.fc.', name)


def state_dict_from_published(
    state_dict: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Rename a published state dict, if it is one, to our names.

    Args:
        state_dict (Mapping[str, Tensor]): Tensors by name.

    Returns:
        dict[str, Tensor]: The same tensors, less the Haar filters.

    Raises:
        ValueError: A Haar filter differs from ours, so that the weights were
            trained on another transform.
    """
    if not is_published(state_dict):
        return dict(state_dict)
    for name in filter(is_haar_filter, state_dict):
        _check_filter(name, state_dict[name])
    return {
        from_published(name): tensor
        for name, tensor in state_dict.items()
        if not is_haar_filter(name)
    }


def haar_filters(channels: int) -> Tensor:
    """Return the transform as the filter bank that published files hold.

    It is (4 * channels, 1, 2, 2), float32, and that of the inverse, too.
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


def _check_filter(name: str, tensor: Tensor) -> None:
    # The shape first: memory for a bank of any size is not to be had.
    shape = tuple(tensor.shape)
    fits = shape[1:] == (1, 2, 2) and shape[0] in range(4, _MAX_FILTERS, 4)
    if not fits or not torch.allclose(
        tensor.detach().cpu().float(), haar_filters(shape[0] // 4), atol=1e-6
    ):
        raise ValueError(
            f'{name} of shape {shape} is not the Haar filter '
            'bank that this network computes with; the file belongs to '
            'another wavelet or another order of its subbands.'
        )

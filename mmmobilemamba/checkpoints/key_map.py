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

# Published -> ours, in a name that begins with our place.
_PARTS = {
    '.m.': '.',
    '.c.': '.conv.',
    'downsample.0.0.': 'downsample.dw0.',
    'downsample.0.1.': 'downsample.ffn0.',
    'downsample.1.conv1.': 'downsample.expand.',
    'downsample.1.conv2.': 'downsample.dwconv.',
    'downsample.1.conv3.': 'downsample.project.',
    'downsample.1.se.': 'downsample.se.',
    'downsample.2.0.': 'downsample.dw1.',
    'downsample.2.1.': 'downsample.ffn1.',
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
_STEM = re.compile(r'(backbone\.)?patch_embed\.\d+\.(c|bn)\.')
_PLACE = re.compile(r'(backbone\.)?(patch_embed|blocks[123])\.(\d+)\.(.*)')


def is_published(state_dict: Iterable[str]) -> bool:
    """Tell whether a state dict, or its names, are of a published file."""
    # Swin, PVT and EfficientViT have other things called patch_embed.
    return any(_STEM.match(name) for name in state_dict)


def is_haar_filter(name: str) -> bool:
    """Tell whether a published name is one of the fixed Haar filters."""
    return name.endswith(('global_op.wt_filter', 'global_op.iwt_filter'))


def from_published(name: str) -> str:
    """Return our name of a published tensor.

    Those of a dense model's backbone begin with ``backbone.``; names that no
    published backbone has stay as they are.
    """
    match = _PLACE.match(name)
    if not match:
        return re.sub(r'^head\.l\.', 'head.fc.', name)
    prefix, part, index, rest = match.groups('')
    index = int(index)
    if part == 'patch_embed':  # with activations between
        place = f'stem.{index // 2}'
    elif part == 'blocks1':
        place = f'stages.0.blocks.{index}'
    elif index < 3:
        place = f'stages.{int(part[-1]) - 1}.downsample.{index}'
    else:
        place = f'stages.{int(part[-1]) - 1}.blocks.{index - 3}'
    name = f'{prefix}{place}.{rest}'
    for old, new in _PARTS.items():
        name = name.replace(old, new)
    return name


def state_dict_from_published(
    state_dict: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Rename a published state dict, if it is one, and drop its filters.

    Raises:
        ValueError: A Haar filter differs from ours, so that the weights were
            trained on another transform.
    """
    if not is_published(state_dict):
        return dict(state_dict)
    ours = {}
    for name, tensor in state_dict.items():
        if not is_haar_filter(name):
            ours[from_published(name)] = tensor
            continue
        bank = haar_filters(tensor.numel() // 16)
        if tensor.shape != bank.shape or not torch.allclose(
            tensor.detach().cpu().float(), bank, atol=1e-6
        ):
            raise ValueError(
                f'{name} is not the Haar filter bank that this network '
                'computes with, but another wavelet or order of subbands.'
            )
    return ours


def haar_filters(channels: int) -> Tensor:
    """Return the transform, and its inverse, as published files hold it.

    It is (4 * channels, 1, 2, 2), float32; the subbands of a channel are low,
    along the height, along the width, along both.
    """
    bank = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
    bank = torch.tensor(bank, dtype=torch.float32) / 2
    return bank.reshape(4, 1, 2, 2).repeat(channels, 1, 1, 1)

"""Filters on the subbands of the two-dimensional orthonormal Haar transform.

Those of channel c are 4c to 4c + 3: (height low, width low), (height high,
width low), (height low, width high), (height high, width high).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import scan_pytorch
from .scan import extension_for


def _haar(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Transform the pixels of 2x2 cells, row by row; half its own inverse."""
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return top + bottom, top - bottom, left + right, left - right


def haar_dwt2d(x: Tensor) -> Tensor:
    """Transform (batch, channels, H, W) to (batch, 4 * channels, ceil(H / 2),
    ceil(W / 2)); odd sides get a row or column of zeros at their end."""
    height, width = x.shape[2:]
    if scan_pytorch.size_is_free or height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    rows = x[..., ::2, :] * 0.5, x[..., 1::2, :] * 0.5
    bands = _haar(*(row[..., i::2] for row in rows for i in (0, 1)))
    return torch.stack(bands, dim=2).flatten(1, 2)


def haar_iwt2d(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Rebuild a map from its subbands, cropped to a height and width."""
    a, b, c, d = _haar(*(x * 0.5).unflatten(1, (-1, 4)).unbind(2))
    rows = [torch.stack(pair, dim=-1).flatten(-2) for pair in ((a, b), (c, d))]
    y = torch.stack(rows, dim=3).flatten(2, 3)
    if scan_pytorch.size_is_free or y.shape[2:] != size:
        y = y[:, :, : size[0], : size[1]]
    return y


def wavelet_conv2d(
    x: Tensor, weights: Sequence[Tensor], backend: str
) -> Tensor:
    """Compute ``IWT(dwconv(WT(x)))``, level within level.

    Args:
        x (Tensor): Map (batch, channels, H, W), floating, contiguous or
            channels_last; a slice of channels will do.
        weights (Sequence[Tensor]): Weight (4 * channels, 1, k, k), k odd, of
            each level.
        backend (str): As of :func:`mmmobilemamba.ops.scan_backend`.

    Returns:
        Tensor: Map of the shape and dtype of ``x``.

    Source: MobileMamba (arXiv:2411.15941), section 3.3; several levels as in
    WTConv (arXiv:2407.05848).
    """
    # Under autocast the map decides, as for other convolutions.
    weight, *inner_weights = (w.to(x.dtype) for w in weights)
    extension = extension_for(x, backend)
    if extension and not inner_weights:
        return extension.wavelet_conv2d(x, weight)
    bands = haar_dwt2d(x)
    groups, _, _, side = weight.shape
    y = F.conv2d(bands, weight, padding=side // 2, groups=groups)
    if inner_weights:
        # The next level works on the low-low band before its filter.
        inner = wavelet_conv2d(bands[:, 0::4], inner_weights, backend)
        low, *high = y.unflatten(1, (-1, 4)).unbind(2)
        y = torch.stack((low + inner, *high), dim=2).flatten(1, 2)
    return haar_iwt2d(y, x.shape[2:])

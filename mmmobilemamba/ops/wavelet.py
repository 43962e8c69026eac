"""Filters on the subbands of the two-dimensional orthonormal Haar transform.

With two taps per axis and stride 2 the transform is sums and differences of
the four pixels of each 2x2 cell, so no convolution is needed. Subbands of
channel c are channels 4c to 4c + 3, in the order (height low, width low),
(height high, width low), (height low, width high), (height high, width high).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import extension_for
from .export import size_is_free


def haar_dwt2d(x: Tensor) -> Tensor:
    """Transform a map (batch, channels, H, W) into its four Haar subbands.

    The result is (batch, 4 * channels, ceil(H / 2), ceil(W / 2)): an odd side
    is padded with one zero row at the bottom or one zero column at the right.
    """
    height, width = x.shape[2:]
    if size_is_free() or height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.unsqueeze(2) * 0.5  # the bands' dimension
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    low_a, low_b = low[..., 0::2], low[..., 1::2]
    high_a, high_b = high[..., 0::2], high[..., 1::2]
    bands = (low_a + low_b, high_a + high_b, low_a - low_b, high_a - high_b)
    return torch.cat(bands, dim=2).flatten(1, 2)


def haar_iwt2d(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Rebuild a map from its subbands, cropped to a height and width."""
    ll, hl, lh, hh = (x * 0.5).unflatten(1, (-1, 4)).unbind(2)
    low_a, low_b = ll + lh, ll - lh  # even and odd columns, height low
    high_a, high_b = hl + hh, hl - hh
    top = torch.stack((low_a + high_a, low_b + high_b), dim=-1).flatten(-2)
    bottom = torch.stack((low_a - high_a, low_b - high_b), dim=-1).flatten(-2)
    y = torch.stack((top, bottom), dim=3).flatten(2, 3)
    if size_is_free() or y.shape[2:] != size:
        y = y[:, :, : size[0], : size[1]]
    return y


def wavelet_conv2d(
    x: Tensor, weights: Sequence[Tensor], backend: str
) -> Tensor:
    """Compute ``IWT(dwconv(WT(x)))``, level within level.

    Args:
        x (Tensor): Map (batch, channels, H, W), floating, contiguous or
            channels_last; a slice of channels will do. Odd sides are padded
            with zeros for the transform, and the result is cropped.
        weights (Sequence[Tensor]): Weight (4 * channels, 1, k, k), k odd, of
            each level; the subbands of channel c are 4c to 4c + 3.
        backend (str): As of :func:`mmmobilemamba.ops.scan_backend`.

    Returns:
        Tensor: Map of the shape and dtype of ``x``.

    Source: MobileMamba (arXiv:2411.15941), section 3.3; several levels as in
    WTConv (arXiv:2407.05848).
    """
    # Under autocast the map decides, as for other convolutions.
    weight, *inner_weights = (w.to(x.dtype) for w in weights)
    extension = extension_for(x, backend)
    if extension is not None and not inner_weights:
        return extension.wavelet_conv2d(x, weight)
    bands = haar_dwt2d(x)
    y = F.conv2d(
        bands, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0]
    )
    if inner_weights:
        # The next level works on the low-low band before its filter.
        inner = wavelet_conv2d(bands[:, 0::4], inner_weights, backend)
        low, *high = y.unflatten(1, (-1, 4)).unbind(2)
        y = torch.stack((low + inner, *high), dim=2).flatten(1, 2)
    return haar_iwt2d(y, x.shape[2:])

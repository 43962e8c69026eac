"""The orthonormal two-dimensional Haar transform, and filters between.

With two taps per axis and stride 2 the transform is sums and differences of
the four pixels of each 2x2 cell, so no convolution is needed. Subbands of
channel c are channels 4c to 4c + 3, in the order (height low, width low),
(height high, width low), (height low, width high), (height high, width high).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .export import size_is_free
from .scan import extension_for


def haar_dwt2d(x: Tensor) -> Tensor:
    """Transform a map into its four Haar subbands.

    Args:
        x (Tensor): Map (batch, channels, H, W). An odd side is padded with
            one zero row at the bottom or one zero column at the right.

    Returns:
        Tensor: Subbands (batch, 4 * channels, ceil(H / 2), ceil(W / 2)).
    """
    batch, channels, height, width = x.shape
    if size_is_free() or height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.unsqueeze(2) * 0.5  # the bands' dimension
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    low_a, low_b = low[..., 0::2], low[..., 1::2]
    high_a, high_b = high[..., 0::2], high[..., 1::2]
    bands = (low_a + low_b, high_a + high_b, low_a - low_b, high_a - high_b)
    return torch.cat(bands, dim=2).flatten(1, 2)


def haar_iwt2d(x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Rebuild a map from its four Haar subbands.

    Args:
        x (Tensor): Subbands (batch, 4 * channels, H, W).
        size (tuple[int, int], optional): Height and width to crop to, in
            pixels. Defaults to None, which keeps (2 * H, 2 * W).

    Returns:
        Tensor: Map (batch, channels, height, width).
    """
    batch, bands, height, width = x.shape
    ll, hl, lh, hh = (x * 0.5).unflatten(1, (bands // 4, 4)).unbind(2)
    low_a, low_b = ll + lh, ll - lh  # even and odd columns, height low
    high_a, high_b = hl + hh, hl - hh
    top = torch.stack((low_a + high_a, low_b + high_b), dim=-1).flatten(-2)
    bottom = torch.stack((low_a - high_a, low_b - high_b), dim=-1).flatten(-2)
    y = torch.stack((top, bottom), dim=3).flatten(2, 3)
    if size is not None and (
        size_is_free() or tuple(size) != (2 * height, 2 * width)
    ):
        y = y[:, :, : size[0], : size[1]]
    return y


def wavelet_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Transform to Haar subbands, convolve them depthwise, transform back.

    Args:
        x (Tensor): Map (batch, channels, H, W), floating, contiguous or
            channels_last; a slice of channels will do. Odd sides are padded
            with zeros for the transform, and the result is cropped.
        weight (Tensor): Weight (4 * channels, 1, k, k), k odd; the subbands
            of channel c are 4c to 4c + 3.
        scale (Tensor, optional): Factors of the filtered subbands,
            (1, 4 * channels, 1, 1). Defaults to None.
        backend (str, optional): Backend name; None takes
            :func:`mmmobilemamba.ops.scan_backend`. Defaults to None.

    Returns:
        Tensor: Map of the shape and dtype of ``x``.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """
    if scale is not None:
        weight = weight * scale.view(-1, 1, 1, 1)
    # Under autocast the map decides, as for other convolutions.
    weight = weight.to(x.dtype)
    extension = extension_for(x, backend)
    if extension is not None:
        return extension.wavelet_conv2d(x, weight)
    bands = F.conv2d(
        haar_dwt2d(x),
        weight,
        padding=weight.shape[-1] // 2,
        groups=weight.shape[0],
    )
    return haar_iwt2d(bands, x.shape[2:])

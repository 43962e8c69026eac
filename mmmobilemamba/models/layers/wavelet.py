"""The wavelet path: filters on the Haar subbands of a map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import ops


def wavelet_path(
    x: Tensor,
    weights: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    backend: str,
) -> Tensor:
    """Compute ``IWT(scale * dwconv(WT(x)))``, level within level.

    Args:
        x (Tensor): Map (batch, channels, H, W).
        weights (Sequence[Tensor]): Weight (4 * channels, 1, k, k) per level.
        scales (Sequence[Tensor | None]): Factors (1, 4 * channels, 1, 1).
        backend (str): As of :func:`mmmobilemamba.ops.wavelet_conv2d`.

    Source: MobileMamba (arXiv:2411.15941), section 3.3; several levels as in
    WTConv (arXiv:2407.05848).
    """
    weight, *inner_weights = weights
    scale, *inner_scales = scales
    if not inner_weights:
        return ops.wavelet_conv2d(x, weight, scale, backend)
    bands = ops.haar_dwt2d(x)
    y = F.conv2d(
        bands, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0]
    )
    if scale is not None:
        y = scale * y
    # The next level works on the low-low band before its filter.
    inner = wavelet_path(bands[:, 0::4], inner_weights, inner_scales, backend)
    low, *high = y.unflatten(1, (-1, 4)).unbind(2)
    y = torch.stack((low + inner, *high), dim=2).flatten(1, 2)
    return ops.haar_iwt2d(y, x.shape[2:])

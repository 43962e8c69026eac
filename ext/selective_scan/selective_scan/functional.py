"""The two scans and what stands around them, as functions."""

from functools import reduce

import torch

from ._library import state_dtype


def _widest(*tensors):
    return reduce(torch.promote_types, {tensor.dtype for tensor in tensors})


def _promote(dtype, *tensors):
    """Cast the floating ones; the operators refuse any others by name."""
    return [
        x.to(dtype) if x is not None and x.is_floating_point() else x
        for x in tensors
    ]


def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    delta_bias=None,
    delta_softplus=False,
    reverse=False,
):
    """Scan a sequence with the selective state space model (S6).

    With ``d = softplus(delta + delta_bias)``, per channel and state,
    ``h_t = exp(d_t * A) * h_(t-1) + d_t * B_t * u_t`` and
    ``y_t = sum over states of C_t * h_t, plus D * u_t``. The state is kept in
    float32 (float64 beside float64 inputs), whatever the inputs' dtype.

    Args:
        u (Tensor): Input (batch, dim, length), contiguous or channels-last
            (stride 1 along dim); other strides are copied. float32, float16,
            bfloat16 or float64.
        delta (Tensor): Step sizes (batch, dim, length).
        A (Tensor): Decay (dim, state), real; 1 to 256 states. Parameters (A,
            D, delta_bias) are used in the state's dtype.
        B (Tensor): Input rows (batch, groups, state, length); groups divides
            dim.
        C (Tensor): Output rows, shaped as B.
        D (Tensor | None): Skip weights (dim,). Defaults to None.
        delta_bias (Tensor | None): Added to delta (dim,). Defaults to None.
        delta_softplus (bool): Whether softplus is applied to delta. Defaults
            to False.
        reverse (bool): Whether the scan runs from the last token to the
            first; nothing is flipped in memory. Defaults to False.

    Returns:
        Tensor: y (batch, dim, length), in u's dtype and layout.

    Raises:
        TypeError: A tensor is not of a floating dtype.
        ValueError: A shape or device does not fit.

    Source: Mamba (arXiv:2312.00752), equations 2 and 3; VMamba
    (arXiv:2401.10166) for the groups.
    """
    dtype = _widest(u, delta, B, C)
    A, D, delta_bias = _promote(state_dtype(dtype), A, D, delta_bias)
    y = torch.ops.selective_scan.selective_scan(
        *_promote(dtype, u, delta),
        A,
        *_promote(dtype, B, C),
        D,
        delta_bias,
        delta_softplus,
        reverse,
    )
    return y.to(u.dtype)


def bidirectional_scan(u, proj, dt_proj, dt_bias, A, D):
    """Scan a sequence in one or both directions and add the results.

    For each direction k, ``dt, B, C`` are the rows of ``proj[:, k]``,
    ``delta = softplus(dt_proj[k] @ dt + dt_bias[k])``, and the selective scan
    with ``A[k]`` and ``D[k]`` runs over the tokens, backwards for k = 1.
    delta is made on the fly and never stored; nothing is flipped.

    Args:
        u (Tensor): Input (batch, inner, length), contiguous or channels-last
            (stride 1 along inner), taken in place; other strides are copied.
            float32, float16, bfloat16 or float64.
        proj (Tensor): Projected rows (batch, directions, rank + 2 * state,
            length): dt, B, C in this order, in token order for both
            directions. Any strides.
        dt_proj (Tensor): Weights (directions, inner, rank). Parameters
            (dt_proj, dt_bias, A, D) are used in the state's dtype.
        dt_bias (Tensor): Biases (directions, inner).
        A (Tensor): Decay (directions, inner, state), real; 1 to 256 states.
        D (Tensor): Skip weights (directions, inner).

    Returns:
        Tensor: y (batch, inner, length), the sum over the directions, in u's
        dtype and layout.

    Raises:
        TypeError: A tensor is not of a floating dtype.
        ValueError: A shape or device does not fit.

    Source: MobileMamba (arXiv:2411.15941), the scan of its global branch.
    """
    dtype = _widest(u, proj)
    y = torch.ops.selective_scan.bidirectional_scan(
        *_promote(dtype, u, proj),
        *_promote(state_dtype(dtype), dt_proj, dt_bias, A, D),
    )
    return y.to(u.dtype)


def wavelet_conv2d(x, weight, scale=None):
    """Transform to Haar subbands, convolve them depthwise, transform back.

    One level of the orthonormal transform. An odd side is padded by a row or
    column of zeros at its end, and the result is cropped.

    Args:
        x (Tensor): Map (batch, channels, height, width), contiguous or
            channels_last, or a slice of channels of such a map, read in
            place. float32, float16, bfloat16 or float64.
        weight (Tensor): Filters (4 * channels, 1, side, side) of odd side, as
            a depthwise convolution has them; those of channel c are 4c to
            4c + 3, in the order (height low, width low), (height high, width
            low), (height low, width high), (height high, width high). Used in
            float32 (float64 beside float64 maps), in which sums are taken.
        scale (Tensor | None): Factor of each subband, (1, 4 * channels, 1, 1)
            or (4 * channels,). Defaults to None, which is 1.

    Returns:
        Tensor: Map of x's shape, dtype and layout.

    Raises:
        TypeError: An argument is no floating tensor.
        ValueError: A shape or device does not fit.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """
    if scale is not None:
        weight = weight * scale.reshape(-1, 1, 1, 1)
    wide = torch.float64 if weight.dtype == torch.float64 else x.dtype
    y = torch.ops.selective_scan.wavelet_conv2d(
        *_promote(wide, x), *_promote(state_dtype(wide), weight)
    )
    return y.to(x.dtype)


def gated_layer_norm(x, z, weight, bias, eps=1e-5):
    """Normalise tokens over their channels and gate them.

    ``y = layer_norm(x) * silu(z)``, with sums in float32 (float64 beside
    float64 tokens).

    Args:
        x (Tensor): Tokens (batch, channels, length), contiguous or
            channels-last. float32, float16, bfloat16 or float64.
        z (Tensor): Gates before their activation, shaped as x.
        weight (Tensor): Norm's weight (channels,), used in float32 (float64
            beside float64 tokens).
        bias (Tensor): Norm's bias (channels,), likewise.
        eps (float): Added to the variance. Defaults to 1e-5.

    Returns:
        Tensor: y (batch, channels, length), in x's dtype and layout.

    Raises:
        TypeError: An argument is no floating tensor.
        ValueError: A shape, a device or eps does not fit.

    Source: Mamba (arXiv:2312.00752) for the gate; VMamba (arXiv:2401.10166)
    for the norm before it.
    """
    wide = _widest(x, z)
    y = torch.ops.selective_scan.gated_layer_norm(
        *_promote(wide, x, z), *_promote(state_dtype(wide), weight, bias), eps
    )
    return y.to(x.dtype)

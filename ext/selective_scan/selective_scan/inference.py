"""What surrounds a scan in a network, for inference on the CPU in float32.

Maps are (batch, channels, height, width) and best have adjacent channels
(``torch.channels_last``, or a slice of channels of such a map, which is read
in place). None of these functions has a gradient.
"""

import torch
import torch.nn.functional as F

from . import _library  # noqa: F401  registers the operators
from ._checks import (
    check_channel_values,
    check_dense_weight,
    check_depthwise_weight,
)

# Channels that the kernels take at a time; weights are padded to it.
BLOCK = 16

# Sums of a stride-2 kernel's three taps along one axis, as
# csrc/inference/halving.h multiplies them, and its order of their pairs.
_TAP_SUMS = ((1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 0), (0, 0, 1))
_TAP_PAIRS = (12, 10, 11, 13, 14, 2, 7, 17, 22) + (
    *(0, 1, 5, 6),
    *(3, 4, 8, 9),
    *(15, 16, 20, 21),
    *(18, 19, 23, 24),
)

_OPS = torch.ops.selective_scan


def _pad(tensor):
    return F.pad(tensor, (0, -tensor.shape[-1] % BLOCK)).contiguous()


def pack_channels(values):
    """Pad a value per channel to whole blocks of channels.

    Args:
        values (Tensor): Values (channels,), as of a bias.

    Returns:
        Tensor: The values, then zeros, (padded,).

    Raises:
        TypeError: They are no floating tensor.
        ValueError: They have not one dimension.
    """
    check_channel_values('values', values)
    return _pad(values.detach())


def pack_depthwise(weight):
    """Lay out the weight of a depthwise convolution.

    Args:
        weight (Tensor): Weight (channels, 1, side, side) of odd side, as
            PyTorch's convolutions have it.

    Returns:
        Tensor: Weight (side, side, padded) for :func:`depthwise_conv2d`.

    Raises:
        TypeError: It is no floating tensor.
        ValueError: Its shape is another.
    """
    check_depthwise_weight(weight)
    return _pad(weight.detach()[:, 0].permute(1, 2, 0))


def pack_wavelet(weight):
    """Lay out the weight of a depthwise convolution on Haar subbands.

    Args:
        weight (Tensor): Weight (4 * channels, 1, side, side) of odd side;
            the subbands of channel c are channels 4c to 4c + 3.

    Returns:
        Tensor: Weight (side, side, 4, padded) for :func:`wavelet_conv2d`.

    Raises:
        TypeError: It is no floating tensor.
        ValueError: Its shape is another.
    """
    check_depthwise_weight(weight, bands=4)
    bands = weight.detach()[:, 0].unflatten(0, (-1, 4))
    return _pad(bands.permute(2, 3, 1, 0))


def pack_matrix(weight):
    """Lay out the weight of a dense convolution.

    Args:
        weight (Tensor): Weight (out_channels, channels, kernel_height,
            kernel_width), as PyTorch's convolutions have it.

    Returns:
        Tensor: Weight (blocks, kernel_height * kernel_width * channels, 16)
        for :func:`dense_conv2d` and :func:`feed_forward`; a block holds 16
        of the outputs, the last one zeros where they end.

    Raises:
        TypeError: It is no floating tensor.
        ValueError: It has not four dimensions.
    """
    check_dense_weight(weight)
    return _pack_columns(weight.detach().permute(2, 3, 1, 0).flatten(0, 2))


def _pack_columns(columns):
    """Cut a matrix (depth, outputs) into blocks of columns."""
    columns = _pad(columns)
    depth, width = columns.shape
    return (
        columns.view(depth, width // BLOCK, BLOCK).transpose(0, 1).contiguous()
    )


def pack_strassen(weight):
    """Lay out the weight of a 1x1 convolution for Strassen's algorithm.

    With it, :func:`dense_conv2d` and :func:`feed_forward` take 7 products of
    matrices in place of 8, two cells of a map together. For products of some
    hundred cells and channels; smaller ones spend more on fetching the weight,
    which takes 7/4 of the memory. Errors are relative to the larger one of
    two neighbouring cells; an infinite or undefined one makes NaN of its
    neighbour, never of another image.

    Args:
        weight (Tensor): Weight (out_channels, channels, 1, 1), as PyTorch's
            convolutions have it, of an even number of channels, at least 32.

    Returns:
        Tensor: Sums of its quarters (tiles, channels / 2, 16).

    Raises:
        TypeError: It is no floating tensor.
        ValueError: Its shape is another.

    Source: Winograd, On multiplication of 2x2 matrices, 1971.
    """
    check_dense_weight(weight, (1, 1))
    channels = weight.shape[1]
    if channels % 2 or channels < 2 * BLOCK:
        raise ValueError(
            'weight must have an even number of channels, at least '
            f'{2 * BLOCK}, got {channels}'
        )
    columns = _pack_columns(weight.detach().flatten(1).t().double())
    upper, lower = columns.chunk(2, dim=1)
    pairs = weight.shape[0] // (2 * BLOCK)
    left, right = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    first = upper[right] - upper[left]
    second = lower[right] - first
    factors = (
        upper[left],
        second,
        lower[right] - upper[right],
        first,
        lower[left] - second,
        lower[right],
        lower[left],
    )
    tiles = torch.stack(factors, dim=1).flatten(0, 1)
    rest = columns[2 * pairs :].unflatten(1, (2, -1)).flatten(0, 1)
    return torch.cat((tiles, rest)).to(weight.dtype)


def pack_halving(weight):
    """Lay out the weight of a 3x3 convolution of stride 2 and padding 1.

    Args:
        weight (Tensor): Weight (out_channels, channels, 3, 3), as PyTorch's
            convolutions have it.

    Returns:
        Tensor: Sums of its taps (blocks, 25 * channels, 16) for
        :func:`halving_conv2d`.

    Raises:
        TypeError: It is no floating tensor.
        ValueError: Its shape is another.
    """
    check_dense_weight(weight, (3, 3))
    taps = weight.detach().double()
    sums = taps.new_tensor(_TAP_SUMS)
    pairs = torch.einsum('ia,jb,ocab->ijco', sums, sums, taps).flatten(0, 1)
    return _pack_columns(
        pairs[list(_TAP_PAIRS)].flatten(0, 1).to(weight.dtype)
    )


def depthwise_conv2d(
    x, weight, bias=None, activation='none', scale=None, shift=None
):
    """Convolve channel by channel, activate, then scale and shift.

    Args:
        x (Tensor): Map (batch, channels, height, width), float32.
        weight (Tensor): Weight from :func:`pack_depthwise`.
        bias (Tensor | None): Added before the activation, from
            :func:`pack_channels`. Defaults to None.
        activation (str): 'none', 'relu' or 'silu'. Defaults to 'none'.
        scale (Tensor | None): Factors after the activation, from
            :func:`pack_channels`. Defaults to None.
        shift (Tensor | None): Added last, beside scale alone. Defaults to
            None.

    Returns:
        Tensor: Map of x's shape, channels_last.

    Raises:
        TypeError: A tensor is not float32.
        ValueError: A shape or the activation does not fit.
    """
    return _OPS.depthwise_conv2d(x, weight, bias, activation, scale, shift)


def wavelet_conv2d(x, weight):
    """Transform to Haar subbands, convolve them depthwise, transform back.

    An odd side is padded by a row or column of zeros at its end, and the
    result is cropped.

    Args:
        x (Tensor): Map (batch, channels, height, width), float32.
        weight (Tensor): Weight from :func:`pack_wavelet`.

    Returns:
        Tensor: Map of x's shape, channels_last.

    Raises:
        TypeError: A tensor is not float32.
        ValueError: A shape does not fit.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """
    return _OPS.packed_wavelet_conv2d(x, weight)


def dense_conv2d(
    x,
    weight,
    bias,
    channels,
    kernel_size=(1, 1),
    stride=(1, 1),
    padding=(0, 0),
    activation='none',
    add=None,
):
    """Convolve densely, activate, then add.

    Args:
        x (Tensor): Map (batch, in_channels, height, width), float32.
        weight (Tensor): Weight from :func:`pack_matrix`, or for 1x1 kernels
            from :func:`pack_strassen`.
        bias (Tensor | None): Added before the activation, from
            :func:`pack_channels`.
        channels (int): Channels of the result.
        kernel_size (tuple[int, int]): Height and width of the kernel.
            Defaults to (1, 1).
        stride (tuple[int, int]): Stride along height and width. Defaults to
            (1, 1).
        padding (tuple[int, int]): Zeros around height and width. Defaults to
            (0, 0).
        activation (str): 'none', 'relu' or 'silu'. Defaults to 'none'.
        add (Tensor | None): Added last, of the result's shape. Defaults to
            None.

    Returns:
        Tensor: Map (batch, channels, out_height, out_width), channels_last.

    Raises:
        TypeError: A tensor is not float32.
        ValueError: A shape, a size or the activation does not fit.
    """
    return _OPS.dense_conv2d(
        x,
        weight,
        bias,
        channels,
        kernel_size,
        stride,
        padding,
        activation,
        add,
    )


def halving_conv2d(x, weight, bias, channels, activation='none'):
    """Convolve densely by 3x3 kernels of stride 2 and padding 1, activate.

    As :func:`dense_conv2d`, with 25 multiplications in place of 36: results
    of a patch of two by two share some. For maps of some thousand results;
    smaller ones spend more on fetching the larger weight. Differences of
    pixels are multiplied, so that an infinite one makes NaN of its patch.

    Args:
        x (Tensor): Map (batch, in_channels, height, width), float32.
        weight (Tensor): Weight from :func:`pack_halving`.
        bias (Tensor | None): Added before the activation, from
            :func:`pack_channels`.
        channels (int): Channels of the result.
        activation (str): 'none', 'relu' or 'silu'. Defaults to 'none'.

    Returns:
        Tensor: Map (batch, channels, ceil(height / 2), ceil(width / 2)),
        channels_last.

    Raises:
        TypeError: A tensor is not float32.
        ValueError: A shape or the activation does not fit.

    Source: minimal filtering (arXiv:1509.09308).
    """
    return _OPS.halving_conv2d(x, weight, bias, channels, activation)


def feed_forward(
    x,
    first,
    first_bias,
    second,
    second_bias,
    hidden,
    activation='relu',
    filter=None,
    filter_bias=None,
    add=None,
):
    """Add to a map what two 1x1 convolutions make of it.

    Args:
        x (Tensor): Map (batch, channels, height, width), float32.
        first (Tensor): Weight to the hidden channels, from
            :func:`pack_matrix` or :func:`pack_strassen`.
        first_bias (Tensor | None): Its bias, from :func:`pack_channels`.
        second (Tensor): Weight back, from the same function.
        second_bias (Tensor | None): Its bias, from :func:`pack_channels`.
        hidden (int): Channels between the two.
        activation (str): Between the two: 'none', 'relu' or 'silu'. Defaults
            to 'relu'.
        filter (Tensor | None): Depthwise 3x3 weight from
            :func:`pack_depthwise`, which x goes through before all else.
            Defaults to None.
        filter_bias (Tensor | None): Its bias, from :func:`pack_channels`.
            Defaults to None.
        add (Tensor | None): Added last, of x's shape. Defaults to None.

    Returns:
        Tensor: Map of x's shape, channels_last.

    Raises:
        TypeError: A tensor is not float32.
        ValueError: A shape or the activation does not fit.
    """
    return _OPS.feed_forward(
        x,
        first,
        first_bias,
        second,
        second_bias,
        hidden,
        activation,
        filter,
        filter_bias,
        add,
    )

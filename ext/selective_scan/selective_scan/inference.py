"""What surrounds a scan in a network, for inference on the CPU in float32.

Maps are (batch, channels, height, width) and best have adjacent channels
(``torch.channels_last``, or a slice of channels of such a map, which is read
in place). None of these functions has a gradient. They raise TypeError where a
tensor is not float32 and ValueError where a shape or another value does not
fit.
"""

import torch
import torch.nn.functional as F

from . import _library  # noqa: F401  registers the operators

# Channels that the kernels take at a time; weights are padded to it.
BLOCK = 16

_OPS = torch.ops.selective_scan


def _pad(tensor):
    return F.pad(tensor, (0, -tensor.shape[-1] % BLOCK)).contiguous()


def pack_channels(values):
    """Pad a value per channel to whole blocks of channels.

    Args:
        values (Tensor): Values (channels,), as of a bias.

    Returns:
        Tensor: The values, then zeros, (padded,).
    """
    return _pad(values.detach())


def pack_depthwise(weight):
    """Lay out the weight of a depthwise convolution.

    Args:
        weight (Tensor): Weight (channels, 1, side, side) of odd side, as
            PyTorch's convolutions have it.

    Returns:
        Tensor: Weight (side, side, padded) for :func:`depthwise_conv2d`.
    """
    return _pad(weight.detach().squeeze(1).permute(1, 2, 0))


def pack_wavelet(weight):
    """Lay out the weight of a depthwise convolution on Haar subbands.

    Args:
        weight (Tensor): Weight (4 * channels, 1, side, side) of odd side;
            the subbands of channel c are channels 4c to 4c + 3.

    Returns:
        Tensor: Weight (side, side, 4, padded) for :func:`wavelet_conv2d`.
    """
    bands = weight.detach().squeeze(1).unflatten(0, (-1, 4))
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
    """
    columns = _pad(weight.detach().permute(2, 3, 1, 0).flatten(0, 2))
    depth, width = columns.shape
    blocks = columns.view(depth, width // BLOCK, BLOCK).transpose(0, 1)
    return blocks.contiguous()


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
        weight (Tensor): Weight from :func:`pack_matrix`.
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
            :func:`pack_matrix`.
        first_bias (Tensor | None): Its bias, from :func:`pack_channels`.
        second (Tensor): Weight back, from :func:`pack_matrix`.
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

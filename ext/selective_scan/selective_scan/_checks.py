"""Argument checks that the functions and the fake kernels share."""

import torch

MAX_STATE = 256
INPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def state_dtype(dtype):
    """Return the dtype of states and parameters beside inputs of a dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_tensors(required, optional=()):
    """Check that arguments are floating tensors on one device.

    Args:
        required (dict[str, Tensor]): The tensors by argument name, u first.
        optional (dict[str, Tensor | None]): Those that may be None.

    Raises:
        TypeError: An argument is no tensor, sparse, or not of a floating
            dtype.
        ValueError: The devices differ.
    """
    given = dict(required)
    given.update({k: v for k, v in dict(optional).items() if v is not None})
    for name, value in given.items():
        _check_tensor(name, value)
    check_devices(given)


def check_devices(given):
    """Check that tensors are on one device.

    Args:
        given (dict[str, Tensor]): The tensors by argument name.

    Raises:
        ValueError: The devices differ.
    """
    first, device = next((k, v.device) for k, v in given.items())
    for name, value in given.items():
        if value.device != device:
            raise ValueError(
                f'{name} is on {value.device} and {first} on {device}; all '
                'tensors must share one device'
            )


def check_channel_values(name, values):
    """Check values per channel.

    Args:
        name (str): Name of the argument.
        values (Tensor): The values.

    Raises:
        TypeError: They are no dense tensor of a floating dtype.
        ValueError: They have not one dimension.
    """
    _check_tensor(name, values)
    if values.dim() != 1:
        raise ValueError(
            f'{name} must have the shape (channels,), got '
            f'{tuple(values.shape)}'
        )


def check_depthwise_weight(weight, bands=1):
    """Check the weight of a depthwise convolution.

    Args:
        weight (Tensor): The weight.
        bands (int): Number of subbands that a channel has. Defaults to 1.

    Raises:
        TypeError: It is no dense tensor of a floating dtype.
        ValueError: Its shape is another.
    """
    _check_tensor('weight', weight)
    shape = tuple(weight.shape)
    if (
        len(shape) != 4
        or shape[0] % bands
        or shape[1] != 1
        or shape[2] != shape[3]
        or shape[2] % 2 == 0
    ):
        channels = 'channels' if bands == 1 else f'{bands} * channels'
        raise ValueError(
            f'weight must have the shape ({channels}, 1, side, side) with an '
            f'odd side, got {shape}'
        )


def check_dense_weight(weight, kernel_size=None):
    """Check the weight of a dense convolution.

    Args:
        weight (Tensor): The weight.
        kernel_size (tuple[int, int] | None): The one kernel that is allowed.
            Defaults to None, any.

    Raises:
        TypeError: It is no dense tensor of a floating dtype.
        ValueError: It has not four dimensions, or another kernel.
    """
    _check_tensor('weight', weight)
    shape = tuple(weight.shape)
    if len(shape) != 4 or kernel_size not in (None, shape[2:]):
        sides = kernel_size or ('kernel_height', 'kernel_width')
        raise ValueError(
            'weight must have the shape (out_channels, channels, '
            f'{sides[0]}, {sides[1]}), got {shape}'
        )


def _check_tensor(name, value):
    if not isinstance(value, torch.Tensor):
        raise TypeError(f'{name} must be a tensor, got {type(value).__name__}')
    if value.layout != torch.strided:
        raise TypeError(f'{name} must be a dense tensor, got {value.layout}')
    if value.dtype not in INPUT_DTYPES:
        raise TypeError(
            f'{name} must be float32, float16, bfloat16 or float64, '
            f'got {value.dtype}'
        )


def _check_sizes(name, tensor, wanted, meaning):
    if tuple(tensor.shape) != wanted:
        raise ValueError(
            f'{name} must have the shape {meaning} = {wanted}, got '
            f'{tuple(tensor.shape)}'
        )


def _check_state(state):
    if not 1 <= state <= MAX_STATE:
        raise ValueError(f'A must have 1 to {MAX_STATE} states, got {state}')


def check_selective_scan(u, delta, A, B, C, D, delta_bias):
    """Check the shapes of ``selective_scan``.

    Raises:
        ValueError: A shape is wrong; the message names the argument and the
            shape wanted.
    """
    if u.dim() != 3:
        raise ValueError(
            f'u must have the shape (batch, dim, length), got {tuple(u.shape)}'
        )
    batch, dim, length = u.shape
    if A.dim() != 2 or A.shape[0] != dim:
        raise ValueError(
            f'A must have the shape (dim, state) with dim = {dim}, got '
            f'{tuple(A.shape)}'
        )
    state = A.shape[1]
    _check_state(state)
    if B.dim() != 4:
        raise ValueError(
            'B must have the shape (batch, groups, state, length), got '
            f'{tuple(B.shape)}'
        )
    groups = B.shape[1]
    if groups < 1 or dim % groups != 0:
        raise ValueError(
            f'B has {groups} groups, which must divide dim = {dim}'
        )
    _check_sizes('delta', delta, (batch, dim, length), '(batch, dim, length)')
    rows = (batch, groups, state, length)
    _check_sizes('B', B, rows, '(batch, groups, state, length)')
    _check_sizes('C', C, rows, '(batch, groups, state, length)')
    if D is not None:
        _check_sizes('D', D, (dim,), '(dim,)')
    if delta_bias is not None:
        _check_sizes('delta_bias', delta_bias, (dim,), '(dim,)')


def check_bidirectional_scan(u, proj, dt_proj, dt_bias, A, D):
    """Check the shapes of ``bidirectional_scan``.

    Raises:
        ValueError: A shape is wrong; the message names the argument and the
            shape wanted.
    """
    if u.dim() != 3:
        raise ValueError(
            f'u must have the shape (batch, inner, length), got '
            f'{tuple(u.shape)}'
        )
    batch, inner, length = u.shape
    if (
        dt_proj.dim() != 3
        or dt_proj.shape[0] not in (1, 2)
        or dt_proj.shape[1] != inner
        or dt_proj.shape[2] < 1
    ):
        raise ValueError(
            'dt_proj must have the shape (directions, inner, rank) with 1 or '
            f'2 directions, inner = {inner} and rank >= 1, got '
            f'{tuple(dt_proj.shape)}'
        )
    directions, _, rank = dt_proj.shape
    if A.dim() != 3:
        raise ValueError(
            'A must have the shape (directions, inner, state), got '
            f'{tuple(A.shape)}'
        )
    state = A.shape[2]
    _check_state(state)
    _check_sizes(
        'A', A, (directions, inner, state), '(directions, inner, state)'
    )
    _check_sizes(
        'proj',
        proj,
        (batch, directions, rank + 2 * state, length),
        '(batch, directions, rank + 2 * state, length)',
    )
    _check_sizes(
        'dt_bias', dt_bias, (directions, inner), '(directions, inner)'
    )
    _check_sizes('D', D, (directions, inner), '(directions, inner)')

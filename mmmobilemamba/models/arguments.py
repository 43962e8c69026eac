"""Checks of arguments, with errors that name them and say what is allowed."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real

# A layer of twice as many channels takes gigabytes; a mistake takes more.
MAX_CHANNELS = 16384
MAX_SIDE = 65536  # pixels


def is_int(value: object) -> bool:
    """Tell whether a value is an integer, which True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> bool:
    """Tell whether a value is a finite number; True and False are none."""
    return (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def check_int(
    name: str, value: object, minimum: int, maximum: int | None = None
) -> None:
    """Check an integer.

    Args:
        name (str): Name of the argument.
        value (object): What was given.
        minimum (int): Smallest that is allowed.
        maximum (int, optional): Largest that is allowed. Defaults to None.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of range.
    """
    allowed = (
        f'{minimum} or more'
        if maximum is None
        else (f'{minimum} to {maximum}')
    )
    if not is_int(value):
        raise TypeError(
            f'{name} must be an int, {allowed}, got {value!r} '
            f'({type(value).__name__}).'
        )
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f'{name} must be {allowed}, got {value!r}.')


def check_bool(name: str, value: object) -> None:
    """Check a switch.

    Args:
        name (str): Name of the argument.
        value (object): What was given.

    Raises:
        TypeError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, got {value!r}.')


def check_number(
    name: str,
    value: object,
    allowed: str,
    test: Callable[[float], bool],
) -> None:
    """Check a number.

    Args:
        name (str): Name of the argument.
        value (object): What was given.
        allowed (str): What is allowed, in words.
        test (Callable): Whether a finite number is.

    Raises:
        TypeError: It is no number.
        ValueError: It is not allowed, infinite or NaN.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f'{name} must be a number, {allowed}, got {value!r} '
            f'({type(value).__name__}).'
        )
    if not math.isfinite(value) or not test(value):
        raise ValueError(f'{name} must be {allowed}, got {value!r}.')


def check_rate(name: str, value: object) -> None:
    """Check a probability of dropping something, in [0, 1).

    Args:
        name (str): Name of the argument.
        value (object): What was given.

    Raises:
        TypeError: It is no number.
        ValueError: It is out of range.
    """
    check_number(name, value, 'in [0, 1)', lambda v: 0 <= v < 1)


def check_ints(
    name: str,
    values: object,
    minimum: int,
    maximum: int | None = None,
    meaning: str = '',
) -> tuple[int, ...]:
    """Check a sequence of integers, at least one.

    Args:
        name (str): Name of the argument.
        values (object): What was given.
        minimum (int): Smallest that is allowed.
        maximum (int, optional): Largest that is allowed. Defaults to None.
        meaning (str): What each stands for, such as ``'one per map'``.
            Defaults to ''.

    Returns:
        tuple[int]: The integers.

    Raises:
        TypeError: It is no list or tuple, or holds something else.
        ValueError: It is empty, or one is out of range.
    """
    wanted = f'a sequence of int{meaning and ", "}{meaning}'
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise TypeError(
            f'{name} must be {wanted}, got {values!r} '
            f'({type(values).__name__}).'
        )
    if not values:
        raise ValueError(f'{name} must hold at least one int, got {values!r}.')
    for index, value in enumerate(values):
        check_int(f'{name}[{index}]', value, minimum, maximum)
    return tuple(values)


def check_size(name: str, size: object) -> None:
    """Check the size of pictures.

    Args:
        name (str): Name of the argument.
        size (int or Sequence[int]): Side, or height and width, in pixels.

    Raises:
        TypeError: It is neither.
        ValueError: A side is out of range, or there are not two.
    """
    sides = (size, size) if is_int(size) else size
    if len(check_ints(name, sides, 1, MAX_SIDE, 'height, width')) != 2:
        raise ValueError(
            f'{name} must be a side, or height and width, in pixels, got '
            f'{size!r}.'
        )

"""Values that an argument of a config must not take, by the kind it has."""

import math

from hypothesis import strategies as st

NOT_A_NUMBER = (None, '3', 'b1', b'3', [3], (3,), {}, {3}, 3j, object())
NOT_FINITE = (math.nan, math.inf, -math.inf)
HUGE = (2**31, 2**63, 10**30)


def wrong_ints(minimum, maximum=None, none=True):
    """Draw what is no integer of a range.

    Args:
        minimum (int): Smallest that is allowed.
        maximum (int, optional): Largest that is. Defaults to None.
        none (bool): Whether None is wrong. Defaults to True.
    """
    values = st.sampled_from(NOT_A_NUMBER[0 if none else 1 :])
    values |= st.booleans() | st.floats() | st.sampled_from(NOT_FINITE)
    values |= st.integers(max_value=minimum - 1)
    if maximum is not None:
        values |= st.integers(min_value=maximum + 1) | st.sampled_from(HUGE)
    return values


def wrong_bools():
    """Draw what is neither True nor False."""
    return st.sampled_from(NOT_A_NUMBER) | st.integers(0, 1) | st.floats()


def wrong_numbers(right, none=True):
    """Draw what is no finite number that ``right`` accepts."""
    values = st.sampled_from(NOT_A_NUMBER[0 if none else 1 :])
    values |= st.booleans() | st.sampled_from(NOT_FINITE)
    return values | st.floats().filter(lambda v: not right(v))


def wrong_ints_in(sizes, minimum, maximum=None, right=None):
    """Draw what is no sequence of integers.

    Args:
        sizes (Sequence[int]): Lengths that are allowed.
        minimum (int): Smallest integer that is allowed.
        maximum (int, optional): Largest that is. Defaults to None.
        right (Callable, optional): Whether a sequence of allowed integers is
            right; wrong ones are then drawn too. Defaults to None.
    """
    top = maximum if maximum is not None else minimum + 9
    good = st.integers(minimum, top)
    longest = max(sizes) + (3 if len(sizes) < 8 else 0)
    values = st.sampled_from((None, 'abc', '012', b'12', {}, {1: 2}, 2.0, 3j))
    values |= st.lists(good, max_size=longest).filter(
        lambda v: len(v) not in sizes
    )
    values |= st.tuples(
        st.lists(good, min_size=min(sizes), max_size=max(sizes)),
        wrong_ints(minimum, maximum),
        st.integers(0, max(sizes) - 1),
    ).map(_replace)
    if right is not None:
        values |= st.lists(
            good, min_size=min(sizes), max_size=max(sizes)
        ).filter(lambda v: not right(v))
    return values


def _replace(drawn):
    values, value, index = drawn
    values[index % len(values)] = value
    return values


def wrong_dicts():
    """Draw what is no config with a type."""
    return st.sampled_from((3, 'BN', [dict(type='BN')], ('BN',), True)) | (
        st.sampled_from(
            (
                {},
                dict(types='BN'),
                dict(type=None),
                dict(type=''),
                dict(type=3),
                dict(type='NoSuchThing'),
                dict(type=['BN']),
            )
        )
    )


def wrong_inits():
    """Draw what is no way to initialise."""
    return wrong_dicts() | st.sampled_from(
        (
            dict(type='Pretrained', checkpoint=3),
            dict(type='Pretrained', checkpoint=None),
            dict(type='Pretrained', checkpoint=''),
            dict(type='Pretrained', checkpoint='a.pth', prefix=3),
            [dict(type='Kaiming'), 3],
            [dict(type='Kaiming'), dict(layer='Conv2d')],
        )
    )

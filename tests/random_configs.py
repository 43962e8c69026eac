"""Configs at random from tables of arguments, right ones and wrong ones.

A table holds, for each argument, a strategy of right and one of wrong values.
"""

import pytest
from hypothesis import strategies as st


def config(table, **fixed):
    """Draw a right config with some of the arguments."""
    return st.fixed_dictionaries(
        {}, optional={name: right for name, (right, _) in table.items()}
    ).map(lambda drawn: {**fixed, **drawn})


def wrong(table, **fixed):
    """Draw the name of an argument, and a config where it is wrong."""
    return st.sampled_from(list(table)).flatmap(
        lambda name: st.tuples(
            st.just(name), config(table, **fixed), table[name][1]
        ).map(lambda drawn: (name, {**drawn[1], name: drawn[2]}))
    )


def assert_refused(name, value, build):
    """Require an error that names the argument, and its value if plain."""
    with pytest.raises((TypeError, ValueError)) as caught:
        build()
    message = str(caught.value)
    assert name in message, message
    if isinstance(value, int | float | str | None):
        assert repr(value) in message, message

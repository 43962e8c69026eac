"""Rounds, turns and ratios, by a clock that only calls move."""

import pytest

from mmmobilemamba.analysis.timing import speedup, time_interleaved


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def taking(self, seconds):
        """Make a callable of given seconds per call."""

        def call():
            self.now += seconds

        return call


@pytest.fixture
def clock():
    return Clock()


def test_turns_are_interleaved_and_their_order_reversed(clock):
    said = []
    calls = {name: lambda name=name: said.append(name) for name in 'abc'}
    time_interleaved(calls, rounds=3, warmup=1, clock=clock)
    assert ''.join(said) == 'abc' + 'abc' + 'cba' + 'abc'


def test_a_slow_spell_hits_all_alike(clock):
    """The ratio holds while the whole machine gets three times slower."""

    def call(seconds):
        clock.now += seconds * (1 if clock.now < 150 else 3)

    calls = {'fast': lambda: call(1.0), 'slow': lambda: call(2.0)}
    found = time_interleaved(calls, rounds=40, warmup=1, clock=clock)
    assert speedup(found['fast'], found['slow']) == pytest.approx(2.0)
    assert speedup(found['slow'], found['fast']) == pytest.approx(0.5)


def test_quick_calls_are_repeated_within_a_turn(clock):
    calls = {'quick': clock.taking(0.25), 'slow': clock.taking(3.0)}
    found = time_interleaved(
        calls, rounds=2, warmup=1, min_turn=1.0, clock=clock
    )
    assert found['quick'] == pytest.approx([0.25, 0.25])
    # Warm-up, then four calls and one before them in each round.
    assert clock.now == pytest.approx(100 + 3.25 + 2 * (5 * 0.25 + 3))


def test_budget_ends_the_rounds_but_leaves_three(clock):
    for seconds, rounds, expected in ((1, 99, 10), (1, 4, 4), (60, 99, 3)):
        calls = {'a': clock.taking(seconds)}
        found = time_interleaved(calls, rounds, budget=10.0, clock=clock)
        assert len(found['a']) == expected

"""Rounds, turns and ratios, by a clock that only calls move."""

import numpy as np
import pytest

from mmmobilemamba.analysis import benchmark
from mmmobilemamba.analysis.benchmark import time_interleaved


@pytest.fixture
def clock(monkeypatch):
    """Give a clock, and let it be the one that times."""

    class Clock:
        now = 100.0
        said = ''

        def taking(self, seconds, name=''):
            """Make a callable of given seconds per call."""

            def call():
                # The whole machine gets three times slower.
                self.now += seconds * (1 if self.now < 200 else 3)
                self.said += name

            return call

    clock = Clock()
    monkeypatch.setattr(benchmark, 'perf_counter', lambda: clock.now)
    monkeypatch.setattr(benchmark, 'sleep', lambda seconds: None)
    return clock


def test_turns_are_interleaved_and_their_order_reversed(clock):
    calls = {name: clock.taking(1, name) for name in 'abc'}
    time_interleaved(calls, rounds=3, warmup=1)
    assert clock.said == 'abc' + 'abc' + 'cba' + 'abc'


def test_a_slow_spell_hits_all_alike(clock):
    calls = {'fast': clock.taking(1.0), 'slow': clock.taking(2.0)}
    found = time_interleaved(calls, rounds=60, warmup=1)
    assert found['slow'][-1] == 6
    ratios = np.divide(found['slow'], found['fast'])
    assert np.median(ratios) == pytest.approx(2.0)


def test_quick_calls_are_repeated_within_a_turn(clock):
    calls = {'quick': clock.taking(0.03), 'slow': clock.taking(3.0)}
    found = time_interleaved(calls, rounds=2, warmup=1)
    assert found['quick'] == pytest.approx([0.03, 0.03])
    # Warm-up, then four calls and one before them in each round.
    assert clock.now == pytest.approx(100 + 3.03 + 2 * (5 * 0.03 + 3))


@pytest.mark.parametrize(
    'seconds, rounds, expected', [(1, 99, 10), (1, 4, 4), (30, 99, 1)]
)
def test_budget_ends_the_rounds(clock, seconds, rounds, expected):
    calls = dict(a=clock.taking(seconds))
    found = time_interleaved(calls, rounds, 1, budget=10.0)
    assert len(found['a']) == expected

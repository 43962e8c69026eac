"""Rounds, turns and ratios, by a clock that only calls move."""

import pytest

from mmmobilemamba.analysis.timing import speedup, time_interleaved


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def taking(clock):
    """Give a function that makes a callable of given seconds per call."""

    def make(seconds):
        def call():
            clock.now += seconds

        return call

    return make


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


def test_quick_calls_are_repeated_within_a_turn(clock, taking):
    calls = {'quick': taking(0.25), 'slow': taking(3.0)}
    found = time_interleaved(
        calls, rounds=2, warmup=1, min_turn=1.0, clock=clock
    )
    assert found['quick'] == pytest.approx([0.25, 0.25])
    # Warm-up, then four calls and one before them in each round.
    assert clock.now == pytest.approx(100 + 3.25 + 2 * (5 * 0.25 + 3))


def test_budget_ends_the_rounds_but_leaves_three(clock, taking):
    for seconds, rounds, expected in ((1, 99, 10), (1, 4, 4), (60, 99, 3)):
        calls = {'a': taking(seconds)}
        found = time_interleaved(calls, rounds, budget=10.0, clock=clock)
        assert len(found['a']) == expected


def test_threads_of_another_runtime_sleep_before_the_next_turn(monkeypatch):
    pauses = []
    monkeypatch.setattr('time.sleep', pauses.append)
    time_interleaved({'a': lambda: None}, rounds=2)
    assert not any(pauses)

    def call():
        pass

    call.spins = True
    time_interleaved({'a': lambda: None, 'b': call}, rounds=2, warmup=1)
    assert sum(pause > 0.04 for pause in pauses) == 6

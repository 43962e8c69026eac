"""Rounds, turns and ratios, by a clock that only calls move."""

import gc

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

    def make(*seconds):
        left = list(seconds)

        def call():
            clock.now += left.pop(0) if len(left) > 1 else left[0]

        return call

    return make


def test_what_counts_are_the_rounds_after_warm_up(clock, taking):
    calls = {'a': taking(9.0, 9.0, 5.0, 1.0, 3.0, 2.0, 4.0)}
    seconds = time_interleaved(calls, rounds=5, warmup=2, clock=clock)['a']
    assert seconds == pytest.approx([5.0, 1.0, 3.0, 2.0, 4.0])


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
    said = []
    nothing = {'a': lambda: said.append(1)}
    time_interleaved(nothing, 1, 1, min_turn=1.0, clock=clock)
    assert len(said) < 2000


def test_budget_ends_the_rounds_but_leaves_three(clock, taking):
    def rounds(seconds, rounds, budget):
        done = []
        time_interleaved(
            {'a': taking(seconds)},
            rounds,
            budget=budget,
            clock=clock,
            progress=done.append,
        )
        return done[-1]

    assert rounds(1.0, 99, 10.0) == 10
    assert rounds(1.0, 4, 10.0) == 4
    assert rounds(60.0, 99, 10.0) == 3


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


def test_garbage_is_collected_between_not_within():
    states = []
    time_interleaved({'a': lambda: states.append(gc.isenabled())}, rounds=1)
    assert not any(states) and gc.isenabled()

    def fail():
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        time_interleaved({'a': fail})
    assert gc.isenabled()


@pytest.mark.parametrize(
    'change', [dict(calls={}), dict(rounds=0), dict(warmup=0)]
)
def test_wrong_settings_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        time_interleaved(**{'calls': {'a': int}, **change})

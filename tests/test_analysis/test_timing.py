import gc

import pytest

from mmmobilemamba.analysis.timing import Timing, time_interleaved


class Clock:
    """A clock that only calls move."""

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


def test_statistics_are_of_the_rounds_after_warm_up(clock, taking):
    calls = {'a': taking(9.0, 9.0, 5.0, 1.0, 3.0, 2.0, 4.0)}
    timing = time_interleaved(calls, rounds=5, warmup=2, clock=clock)['a']
    assert timing.seconds == pytest.approx((5.0, 1.0, 3.0, 2.0, 4.0))
    assert timing.rounds == 5
    assert timing.median == pytest.approx(3.0)
    assert (timing.low, timing.high) == pytest.approx((2.0, 4.0))
    assert timing.minimum == pytest.approx(1.0)
    assert timing.spread == pytest.approx(2 / 3)


def test_one_round_has_its_own_value_for_every_quartile():
    timing = Timing((2.0,))
    assert (timing.low, timing.median, timing.high) == (2.0, 2.0, 2.0)


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
    found = time_interleaved(calls, rounds=40, warmup=0, clock=clock)
    assert found['fast'].speedup_over(found['slow']) == pytest.approx(2.0)
    assert found['slow'].speedup_over(found['fast']) == pytest.approx(0.5)


def test_quick_calls_are_repeated_within_a_turn(clock, taking):
    calls = {'quick': taking(0.25), 'slow': taking(3.0)}
    found = time_interleaved(
        calls, rounds=2, warmup=1, min_turn=1.0, clock=clock
    )
    assert (found['quick'].repeats, found['slow'].repeats) == (4, 1)
    assert found['quick'].seconds == pytest.approx((0.25, 0.25))
    assert clock.now == pytest.approx(100 + 3.25 + 2 * (4 + 0.25))


def test_call_that_takes_no_time_does_not_repeat_forever(clock):
    said = []
    found = time_interleaved(
        {'nothing': lambda: said.append(1)},
        rounds=1,
        warmup=1,
        min_turn=1.0,
        clock=clock,
    )
    # once to warm up, and once before the turn
    assert len(said) == 2 + found['nothing'].repeats == 1002
    assert found['nothing'].spread == 0


def test_budget_ends_the_rounds_but_leaves_three(clock, taking):
    def rounds(seconds, **kwargs):
        calls = {'a': taking(seconds)}
        return time_interleaved(calls, clock=clock, **kwargs)['a'].rounds

    assert rounds(1.0, rounds=None, budget=10.0) == 10
    assert rounds(1.0, rounds=4, budget=10.0) == 4
    assert rounds(60.0, rounds=None, budget=10.0) == 3


def test_progress_is_told_after_each_round(clock, taking):
    said = []
    time_interleaved(
        {'a': taking(1.0)}, rounds=3, clock=clock, progress=said.append
    )
    assert said == [1, 2, 3]


def test_garbage_is_collected_between_not_within(clock):
    states = []
    time_interleaved({'a': lambda: states.append(gc.isenabled())}, rounds=1)
    assert not any(states)
    assert gc.isenabled()

    def fail():
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        time_interleaved({'a': fail})
    assert gc.isenabled()


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(calls={}), 'calls'),
        (dict(rounds=0), 'rounds must be at least 1, got 0'),
        (dict(rounds=None), 'rounds or budget'),
        (dict(warmup=-1), 'warmup'),
        (dict(budget=0.0), 'budget'),
        (dict(min_turn=-1.0), 'min_turn'),
        (dict(min_turn=1.0, warmup=0), 'needs warmup'),
    ],
)
def test_wrong_settings_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        time_interleaved(**{'calls': {'a': int}, **change})


def test_only_rounds_of_one_run_are_paired():
    with pytest.raises(ValueError, match='2 rounds'):
        Timing((1.0,)).speedup_over(Timing((1.0, 1.0)))


class Turn:
    """A call that says when it ran, and in which process."""

    def __init__(self, said, name, process):
        self.said, self.name, self.process = said, name, process

    def __call__(self):
        self.said.append(self.name)


def test_pause_before_a_turn_in_another_process(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmmobilemamba.analysis.timing.time.sleep',
        lambda seconds: said.append('-'),
    )
    calls = {name: Turn(said, name, name.upper()[0]) for name in ('a1', 'a2')}
    calls['own'] = lambda: said.append('own')
    calls['b'] = Turn(said, 'b', 'B')
    time_interleaved(calls, rounds=2, warmup=1)
    warmup = first = 'a1 a2 - own - b'
    second = 'b - own - a2 a1'
    assert ' '.join(said) == f'{warmup} - {first} {second}'

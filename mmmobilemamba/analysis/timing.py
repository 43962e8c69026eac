"""Timing several callables in turn, so that a drifting machine is fair."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

# Fewer rounds than this have no quartiles worth printing.
_MIN_ROUNDS = 3
_MAX_REPEATS = 1000
# Threads of onnxruntime look for work for 43 ms after a call, measured by the
# time of the processor; PyTorch's for 25 ms.
_SETTLE = 0.06


@dataclass(frozen=True)
class Timing:
    """What one callable took, round by round.

    Args:
        seconds (tuple[float]): Seconds of a call in each round, in the order
            of the rounds; the mean of a round's calls where it had several.
        repeats (int): Calls in each round. Defaults to 1.
    """

    seconds: tuple[float, ...]
    repeats: int = 1

    def __post_init__(self):
        if not self.seconds:
            raise ValueError('seconds must hold one round or more, got none.')

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.seconds)

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        """First quartile over the rounds, in seconds."""
        return _quartile(self.seconds, 0)

    @property
    def high(self) -> float:
        """Third quartile over the rounds, in seconds."""
        return _quartile(self.seconds, 2)

    @property
    def minimum(self) -> float:
        """Fastest round, in seconds."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def speedup_over(self, other: 'Timing') -> float:
        """Return how many times as fast as another callable this one is.

        Calls of one round stand side by side in time, so the median of the
        rounds' ratios is steadier than the ratio of the medians.

        Args:
            other (Timing): Timing from the same run.

        Returns:
            float: Above 1 where this callable is the faster one.

        Raises:
            ValueError: The number of rounds differs.
        """
        if other.rounds != self.rounds:
            raise ValueError(
                f'other has {other.rounds} rounds and this timing '
                f'{self.rounds}; only rounds of one run can be paired.'
            )
        return statistics.median(
            theirs / own
            for own, theirs in zip(self.seconds, other.seconds, strict=True)
        )


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int | None = 20,
    warmup: int = 3,
    *,
    budget: float | None = None,
    min_turn: float = 0.0,
    device: str | torch.device = 'cpu',
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Timing]:
    """Time callables in interleaved rounds.

    Every round gives each callable one turn, so that heat, clock rates and
    other processes hit all alike; the order is turned around from round to
    round, so that no callable always follows the same one. A call ends when
    the device has finished its work. Before a turn in another process than
    the last one, that of its attribute ``process``, there is a pause.

    Args:
        calls (Mapping[str, Callable]): What to time, by name.
        rounds (int, optional): Number of rounds; None leaves it to
            ``budget``. Defaults to 20.
        warmup (int): Untimed calls of each callable before the first round.
            Defaults to 3.
        budget (float, optional): Seconds after which no new round begins,
            once three are done. Defaults to None, which is no limit.
        min_turn (float): Seconds that a turn should last: a callable that is
            quicker, judged by its warm-up, is called several times per turn,
            once more before, and counts with their mean. Defaults to 0, one
            call per turn.
        device (str or torch.device): Device that the calls compute on.
            Defaults to ``'cpu'``.
        clock (Callable): Clock in seconds. Defaults to
            :func:`time.perf_counter`.
        progress (Callable, optional): Called with the number of rounds done
            after each. Defaults to None.

    Returns:
        dict[str, Timing]: Timings by name, in the order of ``calls``.

    Raises:
        ValueError: There is nothing to time, or a count is out of range.
    """
    _check(calls, rounds, warmup, budget, min_turn)
    synchronize = _synchronizer(device)
    with _without_garbage_collection():
        repeats = {}
        before = None
        for name, call in calls.items():
            _settle(before, call)
            repeats[name] = _warm_up(
                call, warmup, min_turn, clock, synchronize
            )
            before = call
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        order = list(calls)
        started = clock()
        done = 0
        while done < (math.inf if rounds is None else rounds):
            late = budget is not None and clock() - started >= budget
            if late and done >= _MIN_ROUNDS:
                break
            for name in order:
                call = calls[name]
                _settle(before, call)
                seconds[name].append(
                    _turn(call, repeats[name], clock, synchronize)
                )
                before = call
            order.reverse()
            done += 1
            if progress is not None:
                progress(done)
    return {
        name: Timing(tuple(values), repeats[name])
        for name, values in seconds.items()
    }


def _check(calls, rounds, warmup, budget, min_turn) -> None:
    if not calls:
        raise ValueError('calls must hold at least one callable, got none.')
    if rounds is None and budget is None:
        raise ValueError('rounds or budget must be given, got None for both.')
    if rounds is not None and rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}.')
    if warmup < 0:
        raise ValueError(f'warmup must be at least 0, got {warmup}.')
    if budget is not None and budget <= 0:
        raise ValueError(f'budget must be positive seconds, got {budget}.')
    if min_turn < 0:
        raise ValueError(f'min_turn must be at least 0, got {min_turn}.')
    if min_turn and not warmup:
        raise ValueError('min_turn needs warmup of at least 1, got 0.')


def _synchronizer(device: str | torch.device) -> Callable[[], None]:
    """Return what waits for the work queued on a device."""
    device = torch.device(device)
    if device.type == 'cpu':
        return lambda: None
    module = torch.get_device_module(device)
    return lambda: module.synchronize(device)


def _settle(before: Callable | None, call: Callable) -> None:
    """Let the threads of another process fall asleep, if it had a turn."""
    one, other = (getattr(c, 'process', None) for c in (before, call))
    if before is not None and one is not other:
        time.sleep(_SETTLE)


def _warm_up(call, warmup, min_turn, clock, synchronize) -> int:
    """Call a few times; return how many calls fill a turn."""
    last = math.inf
    for _ in range(warmup):
        last = _turn(call, 1, clock, synchronize)
    if not min_turn:
        return 1
    # A clock too coarse to see a call gives 0 seconds for it.
    wanted = min_turn / last if last else math.inf
    return math.ceil(min(max(wanted, 1), _MAX_REPEATS))


def _turn(call, repeats, clock, synchronize) -> float:
    """Return the mean seconds of a few calls.

    What runs in a process of its own takes the time itself.
    """
    if hasattr(call, 'timed'):
        return call.timed(repeats)
    if repeats > 1:
        call()  # finds the caches full of what the others left
    synchronize()
    started = clock()
    for _ in range(repeats):
        call()
        synchronize()
    return (clock() - started) / repeats


def _quartile(values: tuple[float, ...], index: int) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=4, method='inclusive')[index]


@contextmanager
def _without_garbage_collection():
    """Keep the collector from running within a call."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""Timing several callables in turn, so that a drifting machine is fair."""

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, sleep

import numpy as np
import torch

# Fewer rounds than this have no quartiles worth printing.
_MIN_ROUNDS = 3


def speedup(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Return how many times as fast as another of the run a callable is: the
    median of the rounds' ratios, as calls of a round share their time."""
    return float(np.median(np.divide(others, seconds)))


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    warmup: int = 3,
    *,
    budget: float | None = None,
    min_turn: float = 0.0,
    settle: float = 0.0,
    device: str | torch.device = 'cpu',
) -> dict[str, list[float]]:
    """Time callables in interleaved rounds.

    Every round gives each callable one turn, in alternating order, so that
    heat, clock rates and other processes hit all alike. A call ends when the
    device has finished its work.

    Args:
        calls (Mapping[str, Callable]): What to time, by name.
        rounds (int): Number of rounds. Defaults to 20.
        warmup (int): Untimed calls of each before. Defaults to 3.
        budget (float, optional): Seconds after which no new round begins,
            once three are done.
        min_turn (float): Seconds that a turn should last: a quicker callable
            is called several times per turn, once more before, and counts
            with their mean. Defaults to 0.
        settle (float): Seconds to wait after a turn, in which threads of the
            last one fall asleep. Defaults to 0.
        device (str or torch.device): Whose work a call waits for.

    Returns:
        dict[str, list[float]]: Seconds of a call in each round, by name.

    Raises:
        ValueError: A count is below 1.
    """
    if min(rounds, warmup) < 1:
        raise ValueError(
            f'rounds and warmup must be 1 or more, got {rounds} and {warmup}.'
        )
    synchronize = torch.get_device_module(device).synchronize

    def turn(call: Callable, repeats: int) -> float:
        if repeats > 1:
            call()  # finds the caches full of what the others left
        synchronize()
        started = perf_counter()
        for _ in range(repeats):
            call()
            synchronize()
        seconds = (perf_counter() - started) / repeats
        sleep(settle)
        return seconds

    repeats = {}
    for name, call in calls.items():
        last = [turn(call, 1) for _ in range(warmup)][-1]
        # A coarse clock may see no time at all.
        repeats[name] = max(1, math.ceil(min_turn / max(last, 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, started = list(calls), perf_counter()
    for done in range(rounds):
        late = budget is not None and perf_counter() - started >= budget
        if late and done >= _MIN_ROUNDS:
            break
        for name in order:
            seconds[name].append(turn(calls[name], repeats[name]))
        order.reverse()
    return seconds

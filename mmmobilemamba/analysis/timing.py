"""Timing several callables in turn, so that a drifting machine is fair."""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

# Fewer rounds than this have no quartiles worth printing.
_MIN_ROUNDS = 3
_MAX_REPEATS = 1000
# Threads look for work after a call: onnxruntime's 43 ms, PyTorch's 25 ms.
_SETTLE = 0.06


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
    device: str | torch.device = 'cpu',
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Time callables in interleaved rounds.

    Every round gives each callable one turn, in alternating order, so that
    heat, clock rates and other processes hit all alike. A call ends when the
    device has finished its work. Where one has the attribute ``spins``, as
    those of other runtimes, a turn waits until the last one's threads sleep.

    Args:
        calls (Mapping[str, Callable]): What to time, by name.
        rounds (int): Number of rounds. Defaults to 20.
        warmup (int): Untimed calls of each before. Defaults to 3.
        budget (float, optional): Seconds after which no new round begins,
            once three are done.
        min_turn (float): Seconds that a turn should last: a quicker callable
            is called several times per turn, once more before, and counts
            with their mean. Defaults to 0.
        device (str or torch.device): Whose work a call waits for.
        progress (Callable): Called with the number of rounds done.

    Returns:
        dict[str, list[float]]: Seconds of a call in each round, by name.

    Raises:
        ValueError: There is nothing to time, or a count is below 1.
    """
    counts = dict(calls=len(calls), rounds=rounds, warmup=warmup)
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f'{name} must be at least 1, got {count}.')
    spin = any(getattr(call, 'spins', False) for call in calls.values())
    on_cpu = torch.device(device).type == 'cpu'
    backend = torch.cpu if on_cpu else torch.get_device_module(device)
    synchronize = backend.synchronize

    def turn(call: Callable, repeats: int) -> float:
        if repeats > 1:
            call()  # finds the caches full of what the others left
        synchronize()
        started = clock()
        for _ in range(repeats):
            call()
            synchronize()
        seconds = (clock() - started) / repeats
        time.sleep(_SETTLE * spin)
        return seconds

    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # not within a call
    try:
        repeats = {}
        for name, call in calls.items():
            last = [turn(call, 1) for _ in range(warmup)][-1]
            # A clock too coarse to see a call gives 0 seconds for it.
            wanted = math.ceil(min_turn / max(last, 1e-9))
            repeats[name] = min(max(wanted, 1), _MAX_REPEATS)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        order, started = list(calls), clock()
        for done in range(rounds):
            late = budget is not None and clock() - started >= budget
            if late and done >= _MIN_ROUNDS:
                break
            for name in order:
                seconds[name].append(turn(calls[name], repeats[name]))
            order.reverse()
            progress(done + 1)
    finally:
        if collecting:
            gc.enable()
    return seconds

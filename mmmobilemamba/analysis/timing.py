"""Timing several callables in turn, which is fair on a drifting machine."""

import math
from collections.abc import Callable, Mapping
from time import perf_counter, sleep

import torch

# Fewer rounds than this have no quartiles worth printing.
_MIN_ROUNDS = 3
# Seconds that a turn lasts at least.
_TURN = 0.1
# Threads look for work after a call: onnxruntime's 43 ms, PyTorch's 25 ms.
_SETTLE = 0.06


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    warmup: int = 3,
    budget: float | None = None,
    device: str | torch.device = 'cpu',
) -> dict[str, list[float]]:
    """Time callables in interleaved rounds.

    Every round gives each callable one turn, in alternating order, so that
    heat, clock rates and other processes hit all alike. A quick one is called
    several times per turn, and counts with its mean; a call ends when the
    device has finished its work.

    Args:
        calls (Mapping[str, Callable]): What to time, by name.
        rounds (int): Number of rounds. Defaults to 20.
        warmup (int): Untimed calls of each before. Defaults to 3.
        budget (float, optional): Seconds after which no new round begins,
            once three are done.
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
        sleep(_SETTLE)
        return seconds

    repeats = {}
    for name, call in calls.items():
        last = [turn(call, 1) for _ in range(warmup)][-1]
        repeats[name] = math.ceil(_TURN / last)
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

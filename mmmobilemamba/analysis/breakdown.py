"""Where the time of a forward pass goes, by module and by operator."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

_MARK = 'module: '


@dataclass(frozen=True)
class Share:
    """What one kind of module or operator takes of a forward pass.

    Args:
        name (str): Kind of module, with the kind around it, or operator.
        calls (float): Calls per forward pass.
        seconds (float): Seconds per forward pass, without what other rows
            hold.
        share (float): Part of the whole, 0 to 1.
    """

    name: str
    calls: float
    seconds: float
    share: float


def break_down(
    call: Callable[[], object],
    module: nn.Module,
    device: str | torch.device = 'cpu',
    repeats: int = 5,
) -> tuple[list[Share], list[Share]]:
    """Profile a forward pass.

    The profiler itself costs microseconds per operator, so that small ones
    look larger than they are.

    Args:
        call (Callable): Runs the network, eagerly.
        module (nn.Module): The network.
        device (str or torch.device): Where it runs. Defaults to ``'cpu'``.
        repeats (int): Forward passes to profile. Defaults to 5.

    Returns:
        tuple: Shares by kind of module, where torch's own layers count to
        the module that holds them, and by operator; the largest first.
    """
    on_gpu = torch.device(device).type == 'cuda'
    activities = [ProfilerActivity.CPU]
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    for _ in range(2):
        call()
    with _marked(module), profile(activities=activities) as profiler:
        for _ in range(repeats):
            call()
    by_module, by_operator = _Sums(), _Sums()
    for event in profiler.events():
        seconds = (
            event.self_device_time_total
            if on_gpu
            else event.self_cpu_time_total
        ) / 1e6
        kind = _kind_around(event)
        if event.name.startswith(_MARK):
            # Its own time is Python's, between the operators.
            by_module.add(kind, seconds, calls=1)
            by_operator.add('(Python)', seconds)
        elif not event.is_user_annotation:
            by_module.add(kind, seconds, calls=0)
            by_operator.add(event.name, seconds, calls=1)
    return by_module.shares(repeats), by_operator.shares(repeats)


def shares_table(title: str, shares: list[Share], rows: int = 15) -> str:
    """Lay shares out as a markdown table.

    Args:
        title (str): Heading of the first column.
        shares (list[Share]): What :func:`break_down` gave.
        rows (int): Rows to show; the rest is summed up. Defaults to 15.

    Returns:
        str: The table.
    """
    lines = [f'| {title} | calls | ms | share |', '|---|---:|---:|---:|']
    shown, rest = shares[:rows], shares[rows:]
    if rest:
        shown = [
            *shown,
            Share(
                f'{len(rest)} more',
                sum(item.calls for item in rest),
                sum(item.seconds for item in rest),
                sum(item.share for item in rest),
            ),
        ]
    lines += [
        f'| {item.name} | {item.calls:g} | {item.seconds * 1e3:.3f} '
        f'| {item.share:.1%} |'
        for item in shown
    ]
    return '\n'.join(lines)


class _Sums:
    """Calls and seconds by name."""

    def __init__(self):
        self.calls: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, name: str, seconds: float, calls: int = 0) -> None:
        self.calls[name] += calls
        self.seconds[name] += seconds

    def shares(self, repeats: int) -> list[Share]:
        total = sum(self.seconds.values()) or 1.0
        shares = [
            Share(
                name,
                self.calls[name] / repeats,
                seconds / repeats,
                seconds / total,
            )
            for name, seconds in self.seconds.items()
            if seconds > 0
        ]
        return sorted(shares, key=lambda item: -item.seconds)


def _kind_around(event) -> str:
    while event is not None:
        if event.name.startswith(_MARK):
            return event.name.removeprefix(_MARK)
        event = event.cpu_parent
    return '(outside)'


@contextmanager
def _marked(module: nn.Module) -> Iterator[None]:
    """Let every module but torch's own show in a profile."""
    around: list[tuple[str, record_function]] = []

    def enter(part, args):
        kind = type(part).__name__
        name = f'{around[-1][0]} > {kind}' if around else kind
        mark = record_function(_MARK + name)
        mark.__enter__()
        around.append((kind, mark))

    def leave(part, args, output):
        around.pop()[1].__exit__(None, None, None)

    handles = []
    for part in module.modules():
        if not type(part).__module__.startswith('torch.'):
            handles.append(part.register_forward_pre_hook(enter))
            handles.append(part.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

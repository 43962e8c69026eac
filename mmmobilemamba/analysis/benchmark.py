"""Speed and memory of several networks side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..deploy import RUNTIMES
from .breakdown import break_down, shares_table
from .candidates import Candidate, build_candidate
from .complexity import count_complexity
from .exported import RuntimeProcess, TimedSession, export_candidate
from .memory import cuda_peak, process_peak
from .preparation import (
    check_finite,
    compiler_settings,
    make_pictures,
    prepare,
    prepare_training,
)
from .requests import Form, Request
from .timing import Timing, time_interleaved


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run.

    Args:
        device (str): Where. Defaults to ``'cpu'``.
        batch_sizes (tuple[int]): Each is timed by itself. Defaults to
            (1, 16).
        train (bool): Time forward and backward of a training, not the
            forward pass of a prediction. Defaults to False.
        threads (int, optional): Threads of torch on the CPU; None leaves
            them. Defaults to None.
        freezing (bool): Let the compiler take weights as constants where it
            compiles a prediction. Defaults to True.
        rounds (int): Rounds of measuring. Defaults to 20.
        budget (float, optional): Seconds per batch size after which no new
            round begins. Defaults to None.
        warmup (int): Untimed calls before the first round. Defaults to 3.
        min_turn (float): Seconds that a network's turn in a round should
            last. Defaults to 0.1.
        memory (bool): On a CPU, measure memory too, in a process per network
            and batch size; on a GPU it always is. Defaults to False.
        pairs (tuple): Pairs (label, label) whose speed to compare. Defaults
            to ().
        export_dir (str): Folder that keeps what is exported for a runtime.
            Defaults to ``'work_dirs/exported'``.

    Raises:
        ValueError: A value is out of range.
    """

    device: str = 'cpu'
    batch_sizes: tuple[int, ...] = (1, 16)
    train: bool = False
    threads: int | None = None
    freezing: bool = True
    rounds: int = 20
    budget: float | None = None
    warmup: int = 3
    min_turn: float = 0.1
    memory: bool = False
    pairs: tuple[tuple[str, str], ...] = ()
    export_dir: str = 'work_dirs/exported'

    def __post_init__(self):
        for name in ('threads', 'rounds', 'warmup'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}.')
        if self.budget is not None and self.budget <= 0:
            raise ValueError(
                f'budget must be positive seconds, got {self.budget}.'
            )
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(
                'batch_sizes must be positive numbers, got '
                f'{list(self.batch_sizes)}.'
            )


@dataclass
class _Entry:
    """A network on its way through a benchmark."""

    request: Request
    size: tuple[int, int]
    call: Callable | None
    module: nn.Module | None
    convert: Callable
    exported: Callable | None
    facts: dict


def run_benchmark(
    requests: Sequence[Request],
    settings: Settings,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict]:
    """Build networks, check that they compute, and time them in turn.

    Args:
        requests (Sequence[Request]): Networks, each once.
        settings (Settings): How to run.
        say (Callable): Told what is being done. Defaults to silence.

    Returns:
        list[dict]: Per network its facts and ``results``, one per batch size
        with times in seconds and memory in bytes.

    Raises:
        ValueError: A network is unknown, does not run so, or gives values
            that are not finite.
        ImportError: A library is missing.
    """
    _check_requests(requests, settings)
    with _process(settings, len(requests)):
        entries: list[_Entry] = []
        for number, request in enumerate(requests, start=1):
            say(f'building {number} of {len(requests)}: {request.label}')
            entries.append(_build(request, settings, entries))
        for batch in settings.batch_sizes:
            _measure(entries, batch, settings, say)
    return [entry.facts for entry in entries]


def profile_network(request: Request, settings: Settings) -> str:
    """Show where the time of a network's forward pass goes.

    Args:
        request (Request): Network; it has to run eagerly.
        settings (Settings): How to run; one profile per batch size.

    Returns:
        str: Tables by module and by operator, in markdown.

    Raises:
        ValueError: As :func:`run_benchmark`, or the network is compiled or
            no network of torch.
    """
    parts = []
    with _process(settings, 1):
        entry = _build(request, settings)
        form = request.form
        if entry.module is None or form.compile or form.runtime:
            raise ValueError(
                f'{request.label}: only a network that torch runs eagerly '
                'can be broken down.'
            )
        for batch in settings.batch_sizes:
            call = _call_on(entry, batch, settings)
            shares = break_down(call, entry.module, settings.device)
            parts.append(f'{request.label}, batch {batch}')
            parts += map(shares_table, ('module', 'operator'), shares)
    return '\n\n'.join(parts) + '\n'


def compare(models: list[dict], pairs: Sequence[tuple[str, str]]) -> list:
    """Compare the speed of networks of one run.

    Args:
        models (list[dict]): What :func:`run_benchmark` gave.
        pairs (Sequence[tuple[str, str]]): Labels of two networks each.

    Returns:
        list[dict]: ``model``, ``baseline``, ``batch`` and ``speed``: how
        many times as fast as the baseline the model is.
    """
    timings = {
        (model['label'], result['batch']): Timing(tuple(result['seconds']))
        for model in models
        for result in model['results']
    }
    return [
        dict(
            model=one,
            baseline=other,
            batch=batch,
            speed=timing.speedup_over(timings[other, batch]),
        )
        for one, other in pairs
        for (label, batch), timing in timings.items()
        if label == one
    ]


def _check_requests(requests, settings: Settings) -> None:
    labels = [request.label for request in requests]
    if not labels:
        raise ValueError('Name at least one network to time.')
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f'{label} is named more than once.')
    for label in {label for pair in settings.pairs for label in pair}:
        if label not in labels:
            raise ValueError(
                f'{label} is to be compared with, but not among the networks '
                f'to time: {", ".join(labels)}.'
            )
    if settings.train and any(r.form.deploy for r in requests):
        raise ValueError('A deployed network does not train; use deploy=no.')
    if settings.train and settings.memory and settings.device == 'cpu':
        raise ValueError('memory on a CPU is measured for predictions only.')
    _check_runtimes(requests, settings)


def _check_runtimes(requests, settings: Settings) -> None:
    for request in requests:
        if request.form.runtime is None:
            continue
        label = request.label
        if settings.train:
            raise ValueError(f'{label}: a runtime does not train.')
        if torch.device(settings.device).type != 'cpu':
            raise ValueError(f'{label}: runtimes are timed on the CPU.')
        if request.kind == 'config':
            raise ValueError(
                f'{label}: write it with tools/deploy/export_onnx.py and name '
                'the file.'
            )
        if settings.memory and request.kind != 'onnx':
            raise ValueError(f'{label}: memory is measured of a file only.')


@contextmanager
def _process(settings: Settings, count: int) -> Iterator[None]:
    """Set what belongs to the process, and set it back."""
    threads = torch.get_num_threads()
    tuning = torch.backends.cudnn.benchmark
    compilations = count * len(settings.batch_sizes) + 1
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        torch.backends.cudnn.benchmark = True
        stack.callback(setattr, torch.backends.cudnn, 'benchmark', tuning)
        freezing = settings.freezing and not settings.train
        stack.enter_context(compiler_settings(freezing, compilations))
        # Weights are made within, so that none is an inference tensor.
        stack.enter_context(torch.set_grad_enabled(settings.train))
        yield


def _build(
    request: Request, settings: Settings, built: Sequence[_Entry] = ()
) -> _Entry:
    if request.form.runtime:
        for entry in built:
            like = replace(entry.request, label=request.label)
            if replace(like, form=request.form) == request:
                return _another(entry, request, settings)
    candidate = build_candidate(request)
    ready = prepare_training if settings.train else prepare
    exported, call = candidate.exported, None
    with _explained(request, candidate, settings):
        facts = _facts(request, candidate)
        if request.form.runtime and exported is None:
            exported = _exporter(request, settings)
        else:
            call = ready(candidate, request.form, settings.device)
    return _Entry(
        request,
        candidate.size,
        call,
        candidate.module,
        candidate.convert,
        exported,
        facts,
    )


def _another(entry: _Entry, request: Request, settings: Settings) -> _Entry:
    """Return a network that was built before, for a runtime."""
    facts = dict(
        entry.facts,
        label=request.label,
        name=_name(request),
        form=asdict(request.form),
        results=[],
    )
    return replace(
        entry,
        request=request,
        call=None,
        exported=entry.exported
        if request.kind == 'onnx'
        else _exporter(request, settings),
        facts=facts,
    )


def _exporter(request: Request, settings: Settings) -> Callable[[int], Path]:
    """Return what exports a network; an export uses it up."""

    def export(batch: int) -> Path:
        candidate = build_candidate(request)
        return export_candidate(candidate, request, batch, settings.export_dir)

    return export


def _facts(request: Request, candidate: Candidate) -> dict:
    published = request.published
    facts = dict(
        label=request.label,
        name=_name(request),
        kind=request.kind,
        network=request.network,
        size=list(candidate.size),
        form=asdict(request.form),
        published=asdict(published) if published else None,
        params=None,
        macs=None,
        results=[],
    )
    if candidate.module is not None:
        count = count_complexity(candidate.module, candidate.size)
        facts.update(params=count.params, macs=count.macs)
        scans = {
            module.backend
            for module in candidate.module.modules()
            if hasattr(module, 'scan_directions') or hasattr(module, 'A_log')
        }
        facts['form']['backend'] = ' '.join(sorted(scans)) or None
    return facts


def _name(request: Request) -> str:
    """Return a name for tables: what differs from the others is kept."""
    name = request.label.partition(',')[0].partition('@')[0]
    if request.published:
        name = request.published.name
    elif request.kind in ('config', 'onnx'):
        name = Path(request.network).name
    elif request.kind == 'scan':
        name = request.label.partition(',')[0]
    options = request.label.partition(',')[2]
    return f'{name} ({options.replace(",", ", ")})' if options else name


@contextmanager
def _explained(request, candidate, settings) -> Iterator[None]:
    """Say which network does not run, and how it was asked to."""
    try:
        yield
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        height, width = candidate.size
        reason = str(error).strip().partition('\n')[0]
        raise ValueError(
            f'{request.label} does not run on {height}x{width} pictures in '
            f'{request.form.dtype} on {settings.device}: '
            f'{reason or type(error).__name__}'
        ) from error


def _measure(entries, batch: int, settings: Settings, say) -> None:
    calls = {}
    processes: dict[str, RuntimeProcess] = {}
    with ExitStack() as stack:
        for entry in entries:
            label = entry.request.label
            if entry.request.form.compile:
                say(f'batch {batch}: compiling {label}')
            if entry.exported is None:
                calls[label] = _call_on(entry, batch, settings)
                continue
            say(f'batch {batch}: loading {label}')
            runtime = entry.request.form.runtime or RUNTIMES[0]
            if runtime not in processes:
                threads = torch.get_num_threads()
                processes[runtime] = RuntimeProcess(runtime, threads)
                stack.callback(processes[runtime].close)
            calls[label] = _session(entry, batch, settings, processes[runtime])
        timings = time_interleaved(
            calls,
            settings.rounds,
            settings.warmup,
            budget=settings.budget,
            min_turn=settings.min_turn,
            device=settings.device,
            progress=lambda done: say(
                f'batch {batch}: round {done} of {settings.rounds}'
            ),
        )
    for entry in entries:
        label = entry.request.label
        peak = None
        if torch.device(settings.device).type == 'cuda':
            peak = cuda_peak(calls[label], entry.module, settings.device)
        elif settings.memory:
            say(f'batch {batch}: memory of {label}')
            peak = process_peak(entry.request, batch, settings.threads)
        entry.facts['results'].append(_result(timings[label], batch, peak))


def _session(
    entry: _Entry, batch: int, settings: Settings, process: RuntimeProcess
) -> TimedSession:
    """Return an exported network in its runtime's process, tried once."""
    label = entry.request.label
    x = entry.convert(make_pictures(batch, entry.size, Form()))
    with _explained(entry.request, entry, settings):
        path = entry.exported(batch)
    try:
        session = process.load(path, np.asarray(x))
    except ValueError as error:
        raise ValueError(f'{label}: {error}') from error
    if not session.finite:
        raise ValueError(
            f'{label} gives values that are not finite; it is not timed.'
        )
    return session


def _call_on(entry: _Entry, batch: int, settings: Settings) -> Callable:
    """Return what runs a network on a batch, tried once."""
    x = entry.convert(
        make_pictures(
            batch,
            entry.size,
            entry.request.form,
            settings.device,
            settings.train,
        )
    )

    packed = entry.request.form.pack

    def call():
        # A prediction needs no bookkeeping for gradients at all. Weights are
        # not packed where there might be some.
        with torch.inference_mode(packed and not settings.train):
            with torch.set_grad_enabled(settings.train or not packed):
                return entry.call(x)

    with _explained(entry.request, entry, settings):
        check_finite(call(), entry.request.label)
    return call


def _result(timing: Timing, batch: int, peak: int | None) -> dict:
    return dict(
        batch=batch,
        images_per_second=batch / timing.median,
        median=timing.median,
        low=timing.low,
        high=timing.high,
        minimum=timing.minimum,
        rounds=timing.rounds,
        repeats=timing.repeats,
        seconds=list(timing.seconds),
        peak_memory=peak,
    )

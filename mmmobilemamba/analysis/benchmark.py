"""Speed of networks side by side, each in the form that was asked for."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from time import perf_counter, sleep
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.profiler import profile
from torch.utils._pytree import tree_leaves

from ..apis.input_size import input_channels
from ..deploy import RUNTIMES
from ..ops import BACKENDS, ENV_NAME, scan_backend
from .complexity import count_complexity, detector_samples
from .networks import NetworkSpec, build_network, host_of, random_images

DTYPES = ('float32', 'bfloat16', 'float16')
_FLAGS = dict(yes=True, no=False)
# Options behind a network's name, and their values.
_OPTIONS = dict.fromkeys(
    ('deploy', 'compile', 'channels_last', 'cuda_graph'), _FLAGS
) | dict(dtype=DTYPES, backend=BACKENDS, runtime=RUNTIMES)
# Seconds that a turn lasts at least.
_TURN = 0.1
# Threads look for work after a call: onnxruntime's 43 ms, PyTorch's 25 ms.
_SETTLE = 0.06


@dataclass(frozen=True)
class Form:
    """How a network is run."""

    deploy: bool = True  # branches, norms and shortcuts fused
    backend: str | None = None  # scan of ours; None: the fastest at hand
    compile: bool = False  # by torch.compile, with constant weights
    channels_last: bool = False  # layout of maps and weights
    dtype: str = 'float32'  # one of DTYPES, in a training that of autocast
    cuda_graph: bool = False  # replay all kernels, without launching each
    runtime: str = 'onnxruntime'  # one of RUNTIMES, for an exported file
    train: bool = False  # forward and backward, not a prediction
    device: str = 'cpu'

    def changed(self, spec: NetworkSpec) -> 'Form':
        """Return this form with the options of a network."""
        for name, value in spec.options.items():
            if value not in _OPTIONS.get(name, ()):
                raise ValueError(
                    f'{spec.text}: {name}={value} is no option of a network; '
                    f'allowed: {", ".join(_OPTIONS.get(name, _OPTIONS))}.'
                )
        options = {k: _FLAGS.get(v, v) for k, v in spec.options.items()}
        form = replace(self, **options)
        if form.cuda_graph and torch.device(form.device).type != 'cuda':
            raise ValueError(f'{spec.text}: a graph needs --device cuda.')
        return form


def run_benchmark(
    specs: Iterable[NetworkSpec],
    form: Form,
    batch_sizes: Iterable[int],
    **timing,
) -> list[dict]:
    """Build networks, check that they compute, and time them in turn.

    Args:
        specs (Iterable[NetworkSpec]): Networks, each once.
        form (Form): Holds for what a network's own options do not say.
        batch_sizes (Iterable[int]): Each is timed by itself.
        timing: Arguments of :func:`time_interleaved`, per batch size.

    Returns:
        list[dict]: Facts of each network, of which ``results`` are the
        seconds of a call in each round, one per batch size.

    Raises:
        ValueError: A network gives values that are not finite.
    """
    entries = [_Entry(spec, form) for spec in specs]
    for batch in batch_sizes:
        calls = {entry.spec.text: entry.call_on(batch) for entry in entries}
        timings = time_interleaved(calls, device=form.device, **timing)
        for entry in entries:
            result = dict(batch=batch, seconds=timings[entry.spec.text])
            entry.facts['results'].append(result)
    return [entry.facts for entry in entries]


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
        budget (float, optional): Seconds after which no new round begins.
        device (str or torch.device): Whose work a call waits for.

    Returns:
        dict[str, list[float]]: Seconds of a call in each round, by name.
    """
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
    for _ in range(rounds):
        for name in order:
            seconds[name].append(turn(calls[name], repeats[name]))
        order.reverse()
        if budget is not None and perf_counter() - started >= budget:
            break
    return seconds


def profile_network(spec: NetworkSpec, form: Form, batch: int) -> str:
    """Return a table of torch's profiler, operators by shapes of inputs."""
    call = _Entry(spec, form).call_on(batch)
    with profile(record_shapes=True) as profiler:
        call()
    averages = profiler.key_averages(group_by_input_shape=True)
    key = f'self_{torch.device(form.device).type}_time_total'
    return averages.table(key, 25, max_shapes_column_width=50)


class _Entry:
    """A network on its way through a benchmark, where all fare alike."""

    def __init__(self, spec: NetworkSpec, form: Form):
        self.spec, self.form = spec, form.changed(spec)
        self.facts = dict(asdict(spec), label=spec.label, results=[])
        if spec.kind == 'onnx':
            self._open()
        else:
            self._build()
        self.facts.update(size=self.size, form=asdict(self.form))

    def _open(self) -> None:
        # Needs onnx and onnxruntime, which only this kind does.
        from ..deploy.session import Session

        path, form = self.spec.network, self.form
        if form.train or form.device != 'cpu':
            raise ValueError(f'{self.spec.text}: files predict, and on a CPU.')
        self.session = Session(path, form.runtime, torch.get_num_threads())
        self.size = self.spec.size or self.session.metadata['size']
        if not self.size:
            raise ValueError(f'Say of what size, as in {path}@224.')
        self.facts.update(params=None, macs=None)

    def _build(self) -> None:
        """Bring the network into its form, ours and peers alike."""
        name = self.form.backend
        with patch.dict(os.environ, {ENV_NAME: name} if name else {}):
            form = self.form = replace(self.form, backend=scan_backend())
            self.module, self.size = build_network(self.spec)
        cost = count_complexity(self.module, self.size)
        self.facts.update(params=cost.params, macs=cost.macs)
        self.module.to(form.device).train(form.train)
        if not form.train:
            self._calibrate_and_fuse()
            self.module.to(getattr(torch, form.dtype)).requires_grad_(False)
        if form.channels_last:
            self.module.to(memory_format=torch.channels_last)
        if form.compile:
            # Networks of one family share code, and count against one limit.
            torch._dynamo.config.cache_size_limit = 256
            # Heads of detectors branch on values.
            part = getattr(self.module, 'backbone', self.module)
            part.compile(dynamic=False, options=dict(freezing=True))

    @torch.no_grad()
    def _calibrate_and_fuse(self) -> None:
        """Give every BatchNorm the statistics of a batch, as values grow or
        vanish with the depth of a network that was only initialised; fuse by
        the libraries' own ways, then fold what norms are left."""
        # Maps of a stride of 64 still give each norm some 16 values.
        x = self._noise(max(2, 16 * 64 * 64 // math.prod(self.size)))
        for part in self.module.modules():
            if isinstance(part, _BatchNorm):
                part.train()
                part.momentum = 1.0
        self._maps(x)
        self.module.eval()
        if not self.form.deploy:
            return
        if self.spec.kind == 'timm':
            from timm.utils.model import reparameterize_model

            self.module = reparameterize_model(self.module, True)
        backbone = getattr(self.module, 'backbone', None)
        if hasattr(backbone, 'switch_to_deploy'):
            backbone.switch_to_deploy()
        wanted, before = self._maps(x), deepcopy(self.module)
        _fold_norms(self.module)
        if not all(
            torch.allclose(new, old, rtol=1e-3, atol=1e-3 * old.abs().max())
            for new, old in zip(self._maps(x), wanted, strict=True)
        ):
            # Some norm is defined behind a convolution and runs elsewhere.
            self.module = before

    def _maps(self, x: Tensor) -> list[Tensor]:
        # Without the hosts' heads, as regions depend on values.
        return _tensors(getattr(self.module, 'extract_feat', self.module)(x))

    def call_on(self, batch: int) -> Callable[[], object]:
        """Return what runs the network on a batch, tried once."""
        if self.spec.kind == 'onnx':
            call = self._exported(batch)
        elif self.form.train:
            call = self._training_step(batch)
        else:
            call = self._prediction(batch)
        if not all(t.isfinite().all() for t in _tensors(call())):
            raise ValueError(f'{self.spec.text} gives values not finite.')
        return call

    def _noise(self, batch: int) -> Tensor:
        channels = input_channels(self.module)
        x = random_images(channels, batch, self.size).to(self.form.device)
        if self.form.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _prediction(self, batch: int) -> Callable:
        module, more = self.module, {}
        x = self._noise(batch).to(getattr(torch, self.form.dtype))
        if host_of(module) == 'mmdet':
            more = dict(data_samples=detector_samples(x), mode='predict')
        elif host_of(module) == 'mmseg':
            more = dict(mode='predict')

        @torch.inference_mode()
        def call():
            return module(x, **more)

        return _capture(call) if self.form.cuda_graph else call

    def _training_step(self, batch: int) -> Callable:
        module, x = self.module, self._noise(batch)
        if host_of(module) in ('mmdet', 'mmseg'):
            raise ValueError(f'{self.spec.text} does not classify: no --train')
        dtype = getattr(torch, self.form.dtype)
        target = torch.zeros(batch, dtype=torch.long, device=x.device)

        def step():
            module.zero_grad(set_to_none=True)
            with torch.autocast(x.device.type, dtype, dtype != torch.float32):
                scores = module(x)
            loss = F.cross_entropy(scores.float(), target)
            loss.backward()
            return loss.detach()

        return step

    def _exported(self, batch: int) -> Callable:
        session = self.session
        x = random_images(session.metadata['channels'], batch, self.size)
        if session.dtype == np.uint8:
            x = (x * 64 + 128).clamp(0, 255)  # pixels, preprocessed within
        x = x.numpy().astype(session.dtype)
        return lambda: list(session(x).values())


def _capture(call: Callable) -> Callable:
    """Return what replays the kernels of a call on a GPU."""
    for _ in range(3):  # chooses kernels and fills the caches
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay():
        graph.replay()
        return output

    return replay


def _fold_norms(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution that is defined before it, as
    mmcv's fuse_conv_bn, but also such that hold an activation, as timm's."""
    before = None
    for name, child in list(module.named_children()):
        if not isinstance(child, _BatchNorm):
            _fold_norms(child)
            before = name if isinstance(child, nn.Conv2d) else None
        elif before:
            fused = fuse_conv_bn_eval(getattr(module, before), child)
            setattr(module, before, fused)
            setattr(module, name, nn.Sequential(*child.children()))
            before = None


def _tensors(value: object) -> list[Tensor]:
    """Return the floating tensors of a network's output."""
    found = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, BaseDataElement):
            found += _tensors(leaf.values())
        elif isinstance(leaf, Tensor | np.ndarray):
            found.append(torch.as_tensor(leaf))
    return [tensor for tensor in found if tensor.is_floating_point()]

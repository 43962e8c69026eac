"""Speed of networks side by side, each in the form that was asked for."""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from math import prod
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

from ..deploy import RUNTIMES
from ..ops import BACKENDS, ENV_NAME, scan_backend
from .complexity import count_complexity, detector_samples
from .networks import (
    NetworkSpec,
    build_network,
    host_of,
    random_images,
)
from .timing import time_interleaved

DTYPES = ('float32', 'bfloat16', 'float16')
# Maps of a stride of 64 still give each norm some 16 values of these.
_CALIBRATION_PIXELS = 16 * 64 * 64


@dataclass(frozen=True)
class Form:
    """How a network is run."""

    # Fuse what is fixed after training: branches, norms, shortcuts.
    deploy: bool = True
    backend: str | None = None  # scan of ours; None: the fastest at hand
    compile: bool = False  # by torch.compile, with constant weights
    channels_last: bool = False  # layout of maps and weights
    dtype: str = 'float32'  # one of DTYPES, in a training that of autocast
    cuda_graph: bool = False  # replay all kernels, without launching each
    runtime: str = 'onnxruntime'  # one of RUNTIMES, for an exported file

    def changed(self, spec: NetworkSpec) -> 'Form':
        """Return this form with the options of a network."""
        names = dict.fromkeys(asdict(self), ('yes', 'no'))
        names |= dict(dtype=DTYPES, runtime=RUNTIMES, backend=BACKENDS)
        for name, value in spec.options.items():
            if value not in names.get(name, ()):
                allowed = ', '.join(names.get(name, names))
                raise ValueError(
                    f'{spec.text}: {name}={value} is no option of a network; '
                    f'allowed: {allowed}.'
                )
        read = dict(yes=True, no=False)
        options = {k: read.get(v, v) for k, v in spec.options.items()}
        return replace(self, **options)


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run: where, with which batch sizes, each by itself,
    of trainings or predictions; the rest as :func:`time_interleaved` takes
    it, per batch size."""

    device: str = 'cpu'
    batch_sizes: tuple[int, ...] = (1, 16)
    train: bool = False
    rounds: int = 20
    budget: float | None = None
    warmup: int = 3
    min_turn: float = 0.1


def run_benchmark(
    specs: Sequence[NetworkSpec],
    form: Form,
    settings: Settings,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict]:
    """Build networks, check that they compute, and time them in turn.

    ``form`` holds for what a network's own options do not say, ``say`` is
    told what is being done.

    Returns:
        list[dict]: Per network its facts and ``results``, the seconds of a
        call in each round, one per batch size.

    Raises:
        ValueError: A network gives values that are not finite.
    """
    texts = [spec.text for spec in specs]
    if not texts or len(set(texts)) < len(texts):
        raise ValueError(f'Name networks, each once; got {texts or "none"}.')
    entries: list[_Entry] = []
    for spec in specs:
        say(f'building {spec.text}')
        entries.append(_Entry(spec, form, settings))
    for batch in settings.batch_sizes:
        say(f'batch {batch}: warming up')
        timings = time_interleaved(
            {entry.spec.text: entry.call_on(batch) for entry in entries},
            settings.rounds,
            settings.warmup,
            budget=settings.budget,
            min_turn=settings.min_turn,
            device=settings.device,
            progress=lambda n, b=batch: say(f'batch {b}: round {n}'),
        )
        for entry in entries:
            result = dict(batch=batch, seconds=timings[entry.spec.text])
            entry.facts['results'].append(result)
    return [entry.facts for entry in entries]


def profile_network(spec: NetworkSpec, form: Form, settings: Settings) -> str:
    """Return a table of torch's profiler per batch size: the operators that
    take most of the time, by shapes of their inputs."""
    entry, parts = _Entry(spec, form, settings), []
    for batch in settings.batch_sizes:
        call = entry.call_on(batch)
        with profile(record_shapes=True) as profiler:
            call()
        averages = profiler.key_averages(group_by_input_shape=True)
        key = f'self_{torch.device(settings.device).type}_time_total'
        table = averages.table(key, 25, max_shapes_column_width=50)
        parts.append(f'{spec.text}, batch {batch}\n{table}')
    return '\n'.join(parts)


class _Entry:
    """A network on its way through a benchmark, where all fare alike."""

    def __init__(self, spec: NetworkSpec, form: Form, settings: Settings):
        self.spec, self.settings = spec, settings
        self.form, self.module = form.changed(spec), None
        self.size = spec.size
        if spec.kind != 'onnx':
            name = self.form.backend
            with patch.dict(os.environ, {ENV_NAME: name} if name else {}):
                self.form = replace(self.form, backend=scan_backend())
                self.module, self.size = build_network(spec)
        self.facts = dict(asdict(spec), label=spec.label, params=None)
        self.facts.update(form=asdict(self.form), macs=None, results=[])
        self.facts['size'] = list(self.size or ())
        if self.module:
            cost = count_complexity(self.module, self.size)
            self._prepare()
            self.facts.update(params=cost.params, macs=cost.macs)

    def _prepare(self) -> None:
        """Bring the network into its form, ours and peers alike."""
        form, settings = self.form, self.settings
        self.module.to(settings.device).train(settings.train)
        if not settings.train:
            batch = max(2, _CALIBRATION_PIXELS // prod(self.size))
            x = random_images(self.module, batch, self.size)
            x = x.to(settings.device)
            with torch.no_grad():
                _calibrate_norms(self.module, lambda: self._dense(x))
                if form.deploy:
                    self._deploy(x)
            self.module.to(getattr(torch, form.dtype)).requires_grad_(False)
        if form.channels_last:
            self.module.to(memory_format=torch.channels_last)
        if form.compile:
            # Networks of one family share code, and count against one limit.
            torch._dynamo.config.cache_size_limit = 256
            # Heads of detectors branch on values.
            part = getattr(self.module, 'backbone', self.module)
            part.compile(dynamic=False, options=dict(freezing=True))

    def _deploy(self, x: Tensor) -> None:
        """Fuse by the libraries' own ways, then fold what norms are left."""
        if type(self.module).__module__.startswith('timm.'):
            from timm.utils.model import reparameterize_model

            self.module = reparameterize_model(self.module, True)
        backbone = getattr(self.module, 'backbone', None)
        if hasattr(backbone, 'switch_to_deploy'):
            backbone.switch_to_deploy()
        wanted, before = _tensors(self._dense(x)), deepcopy(self.module)
        _fold_norms(self.module)
        found = _tensors(self._dense(x))
        if not all(
            torch.allclose(new, old, rtol=1e-3, atol=1e-3 * old.abs().max())
            for new, old in zip(found, wanted, strict=True)
        ):
            # Some norm is defined behind a convolution and runs elsewhere.
            self.module = before

    def _dense(self, x: Tensor) -> object:
        """Run what sees whole maps; regions depend on values."""
        module = self.module
        if host_of(module) not in ('mmdet', 'mmseg'):
            return module(x)
        maps = module.extract_feat(x)
        names = ('rpn_head', 'bbox_head', 'decode_head')
        heads = (getattr(module, name, None) for name in names)
        return [maps, *(head(maps) for head in heads if head is not None)]

    def call_on(self, batch: int) -> Callable[[], object]:
        """Return what runs the network on a batch, tried once."""
        if self.module is None:
            call = self._exported(batch)
        elif self.settings.train:
            call = self._training_step(batch)
        else:
            call = self._prediction(batch)
        if not all(t.isfinite().all() for t in _tensors(call())):
            raise ValueError(f'{self.spec.text} gives values not finite.')
        return call

    def _images(self, batch: int) -> Tensor:
        x = random_images(self.module, batch, self.size)
        x = x.to(self.settings.device)
        if not self.settings.train:
            x = x.to(getattr(torch, self.form.dtype))
        if self.form.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _prediction(self, batch: int) -> Callable:
        module, x, more = self.module, self._images(batch), {}
        if host_of(module) == 'mmdet':
            more = dict(data_samples=detector_samples(x), mode='predict')
        elif host_of(module) == 'mmseg':
            more = dict(mode='predict')

        @torch.inference_mode()
        def call():
            return module(x, **more)

        return _capture(call) if self.form.cuda_graph else call

    def _training_step(self, batch: int) -> Callable:
        module, x = self.module, self._images(batch)
        if host_of(module) in ('mmdet', 'mmseg'):
            raise ValueError(f'{self.spec.text} does not classify: no --train')
        dtype = getattr(torch, self.form.dtype)
        mixed = dtype != torch.float32
        target = torch.zeros(batch, dtype=torch.long, device=x.device)

        def step():
            module.zero_grad(set_to_none=True)
            with torch.autocast(x.device.type, dtype, enabled=mixed):
                scores = module(x)
            loss = F.cross_entropy(scores.float(), target)
            loss.backward()
            return loss.detach()

        return step

    def _exported(self, batch: int) -> Callable:
        # Needs onnx and onnxruntime, which only this kind does.
        from ..deploy.session import Session

        spec = self.spec
        if self.settings.train or self.settings.device != 'cpu':
            raise ValueError(f'{spec.text}: files predict, and on a CPU.')
        threads = torch.get_num_threads()
        session = Session(spec.network, self.form.runtime, threads)
        size = spec.size or session.metadata['size']
        if not size:
            raise ValueError(f'Say of what size, as in {spec.network}@224.')
        self.facts['size'] = list(size)
        shape = (batch, session.metadata['channels'], *size)
        x = np.random.default_rng(0).normal(size=shape)
        if session.dtype == np.uint8:
            x = np.clip(x * 64 + 128, 0, 255)  # pixels, preprocessed within
        x = x.astype(session.dtype)

        def call():
            return list(session(x).values())

        call.spins = True
        return call


def _capture(call: Callable) -> Callable:
    """Return what replays the kernels of a call on a GPU."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # chooses kernels and fills the caches
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay():
        graph.replay()
        return output

    return replay


def _calibrate_norms(module: nn.Module, run: Callable) -> None:
    """Give every BatchNorm the statistics of a batch, as values grow or
    vanish with the depth of a network that was only initialised."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.train()
            part.momentum = 1.0
    run()
    module.eval()


def _fold_norms(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution that is defined before it.

    As mmcv's fuse_conv_bn, but for norms that hold an activation, as timm's.
    """
    before = None
    for name, child in list(module.named_children()):
        if not isinstance(child, _BatchNorm):
            _fold_norms(child)
            before = name if isinstance(child, nn.Conv2d) else None
        elif before:
            fused = fuse_conv_bn_eval(getattr(module, before), child)
            setattr(module, before, fused)
            rest = (getattr(child, part, None) for part in ('drop', 'act'))
            rest = [part for part in rest if isinstance(part, nn.Module)]
            setattr(module, name, nn.Sequential(*rest))
            before = None


def _tensors(value: object) -> list[Tensor]:
    """Return the floating tensors of a network's output."""
    found = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, BaseDataElement):
            found += _tensors(list(leaf.values()))
        elif isinstance(leaf, Tensor | np.ndarray):
            found.append(torch.as_tensor(leaf))
    return [tensor for tensor in found if tensor.is_floating_point()]

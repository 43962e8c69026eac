"""Count the multiply-accumulates and parameters of any model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ..ops import backend
from .detectors import data_samples, is_detector, shape_only_proposals
from .op_counts import MacCounter, haar_macs, scan_macs


@dataclass(frozen=True)
class Complexity:
    """What a forward pass in evaluation mode costs.

    Attributes:
        macs (int): Multiply-accumulates; most papers call them FLOPs.
        params (int): Parameters, all of them.
        unused_params (int): Those of ``params`` that the forward pass does
            not read, as auxiliary heads'.
        by_operator (dict[str, int]): MACs per kind of operator.
        modules (dict[str, tuple[int, int]]): MACs and parameters per module.
    """

    macs: int
    params: int
    unused_params: int = 0
    by_operator: dict[str, int] = field(default_factory=dict)
    modules: dict[str, tuple[int, int]] = field(default_factory=dict)

    def table(self, depth: int = 2) -> str:
        """Lay the modules out as lines of text.

        Args:
            depth (int): Levels of modules to show. Defaults to 2.

        Returns:
            str: Module, MACs, their share and parameters, a line each.
        """
        rows = [('module', 'MACs', 'share', 'parameters')]
        for name, (macs, params) in self.modules.items():
            level = name.count('.') + 1 if name else 0
            if level <= depth and (macs or params):
                label = '  ' * level + (name.rpartition('.')[2] or '(whole)')
                share = f'{macs / max(self.macs, 1):.1%}'
                rows.append((label, f'{macs:,}', share, f'{params:,}'))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return '\n'.join(
            f'{row[0]:<{widths[0]}}  '
            + '  '.join(
                f'{cell:>{width}}'
                for cell, width in zip(row[1:], widths[1:], strict=True)
            )
            for row in rows
        )


def count_complexity(
    model: nn.Module,
    inputs: Sequence[int] | Tensor | tuple[Tensor, ...],
    forward: Callable | None = None,
    device: str = 'meta',
    **kwargs,
) -> Complexity:
    """Count MACs and parameters of a forward pass in evaluation mode.

    Only shapes are computed, on torch's meta device, so that it takes a
    moment for a picture of any size, and says the same on every machine and
    for every scan backend. The model is left as it was. Models of the
    OpenMMLab libraries run in their tensor mode, up to the heads' raw
    results: segmentors without auxiliary heads, two-stage detectors with as
    many proposals as their test_cfg keeps, and masks of 100 of them, as in
    MMDetection's own count.

    Args:
        model (nn.Module): Any module.
        inputs (Sequence[int] or Tensor or tuple[Tensor]): Shape of one
            picture, (height, width) or (channels, height, width), or of a
            batch, or the positional inputs themselves.
        forward (callable, optional): Called with the model and the inputs
            instead of the model itself. Defaults to None.
        device (str): ``'meta'`` computes shapes alone; another one runs
            models whose work depends on values. Defaults to ``'meta'``.
        **kwargs: Keyword arguments of the forward pass.

    Returns:
        Complexity: Counts, those of a batch for a batch.

    Raises:
        ValueError: The shape is none.
        RuntimeError: On the meta device, the model asks for a value.
    """
    args = tuple(tensor.to(device) for tensor in _as_inputs(inputs))
    if is_detector(model):
        kwargs.setdefault('data_samples', data_samples(args[0].shape))
    runner = _Forward(model, forward)
    tensors = {
        name: tensor.detach().to(device)
        for group in (runner.named_parameters, runner.named_buffers)
        for name, tensor in group()
    }
    counter = MacCounter()
    with ExitStack() as stack:
        # Kernels that only infer, which no counter knows, stay out of this
        # mode. Detached tensors make no graph in it.
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_evaluating(model))
        stack.enter_context(_our_operators(model, counter))
        if device == 'meta':
            stack.enter_context(shape_only_proposals(model))
        stack.enter_context(counter)
        torch.func.functional_call(runner, tensors, args, kwargs)
    counts = {
        name.removeprefix('model').removeprefix('.'): ops
        for name, ops in counter.macs().items()
    }
    params = dict(model.named_parameters())
    unused = sum(
        parameter.numel()
        for name, parameter in params.items()
        if id(tensors[f'model.{name}']) not in counter.used
    )
    total = counts.get('', {})
    return Complexity(
        macs=sum(total.values()),
        params=sum(p.numel() for p in params.values()),
        unused_params=unused,
        by_operator=dict(sorted(total.items(), key=lambda x: -x[1])),
        modules={
            name: (
                _macs_within(name, module, counts),
                sum(p.numel() for p in module.parameters()),
            )
            for name, module in model.named_modules()
        },
    )


def _macs_within(name: str, module: nn.Module, counts: dict) -> int:
    """Return the MACs of a module, or of the parts of one that only holds."""
    if name in counts:
        return sum(counts[name].values())
    prefix = f'{name}.' if name else ''
    return sum(
        _macs_within(prefix + part, child, counts)
        for part, child in module.named_children()
    )


class _Forward(nn.Module):
    """A model under the name that its forward pass is counted by."""

    def __init__(self, model: nn.Module, forward: Callable | None):
        super().__init__()
        self.model = model
        self.call = forward
        self.training = model.training

    def forward(self, *args, **kwargs):
        if self.call is not None:
            return self.call(self.model, *args, **kwargs)
        return self.model(*args, **kwargs)


def _as_inputs(inputs) -> tuple[Tensor, ...]:
    """Return positional inputs for a shape, or those given."""
    if isinstance(inputs, Tensor):
        return (inputs,)
    inputs = tuple(inputs)
    if inputs and all(isinstance(value, Tensor) for value in inputs):
        return inputs
    if len(inputs) not in (2, 3, 4) or not all(
        isinstance(side, int) and side > 0 for side in inputs
    ):
        raise ValueError(
            'inputs must be tensors or the shape of a picture, (height, '
            f'width), with channels or batch before them, got {inputs!r}.'
        )
    shape = (1, 3)[: 4 - len(inputs)] + inputs
    return (torch.rand(shape),)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every part back afterwards."""
    modes = {module: module.training for module in model.modules()}
    # torch's own shortcut of attention is one operator without a count.
    shortcut = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(shortcut)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _our_operators(model: nn.Module, counter: MacCounter) -> Iterator[None]:
    """Count the scan and the wavelet path by rule, whatever computes them."""

    def scan(u, delta, A, B, C, D=None, *args, **kwargs):
        tokens = u.shape[0] * u.shape[2]
        counter.add('scan', scan_macs(tokens, u.shape[1], A.shape[1], 1))
        return torch.empty_like(u)

    def bidirectional(u, proj, dt_proj, dt_bias, A, D):
        directions, _, rank = dt_proj.shape
        tokens = u.shape[0] * u.shape[2]
        macs = scan_macs(tokens, u.shape[1], A.shape[2], directions, rank)
        counter.add('scan', macs)
        return torch.empty_like(u)

    def wavelet(module, args, output):
        levels = len(module.wavelet_convs)
        counter.add('wavelet', haar_macs(*args[0].shape, levels))

    rules = SimpleNamespace(
        selective_scan=scan, bidirectional_scan=bidirectional
    )
    with ExitStack() as stack:
        stack.enter_context(
            patch.object(backend, '_implementation', lambda *_: rules)
        )
        for module in model.modules():
            if hasattr(module, 'wavelet_convs'):
                handle = module.register_forward_hook(wavelet)
                stack.callback(handle.remove)
        yield

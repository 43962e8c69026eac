"""Bringing networks into the form in which they are timed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import hold_weights_constant
from .candidates import Candidate
from .fusing import calibrate_norms, fold_norms, iter_tensors
from .requests import Form

# Maps of a stride of 64 still give each norm some 16 values of these.
_CALIBRATION_PIXELS = 16 * 64 * 64


def prepare(
    candidate: Candidate, form: Form, device: str | torch.device = 'cpu'
) -> Callable[[Tensor], object]:
    """Bring a network into the form in which it predicts.

    Every network is treated alike: norms get the statistics of a random
    batch, a deployed form fuses what the network itself can fuse and folds
    every BatchNorm that is left behind a convolution.

    Args:
        candidate (Candidate): What to prepare; its module is used up.
        form (Form): How it shall run.
        device (str or torch.device): Where. Defaults to ``'cpu'``.

    Returns:
        Callable: Takes pictures (batch, 3, H, W) and predicts.

    Raises:
        ValueError: The network computes something else once it is fused.
    """
    if candidate.module is None:
        return partial(candidate.forward, None)
    module = prepare_module(candidate, form, device)
    module = _lay_out(module.to(getattr(torch, form.dtype)), form)
    _compile(candidate, module, form)
    return partial(candidate.forward, module.requires_grad_(False))


def prepare_module(
    candidate: Candidate, form: Form, device: str | torch.device = 'cpu'
) -> nn.Module:
    """Give a network's norms statistics, and fuse it.

    Args:
        candidate (Candidate): What to prepare; its module is used up.
        form (Form): Tells whether to fuse.
        device (str or torch.device): Where. Defaults to ``'cpu'``.

    Returns:
        nn.Module: The network.

    Raises:
        ValueError: The network computes something else once it is fused.
    """
    module = candidate.module.to(device).eval()
    height, width = candidate.size
    batch = max(2, _CALIBRATION_PIXELS // (height * width))
    example = make_pictures(batch, candidate.size, Form(), device)
    calibrate_norms(module, lambda: candidate.probe(module, example))
    if form.deploy:
        module = _fuse(module)
        fold_norms(module, lambda: candidate.probe(module, example))
    return module


def prepare_training(
    candidate: Candidate, form: Form, device: str | torch.device = 'cpu'
) -> Callable[[Tensor], Tensor]:
    """Bring a classifier into the form in which it trains.

    Args:
        candidate (Candidate): What to prepare; its module is used up.
        form (Form): How it shall run; another dtype than float32 is that of
            autocast, and nothing is fused.
        device (str or torch.device): Where. Defaults to ``'cpu'``.

    Returns:
        Callable: Takes pictures (batch, 3, H, W), runs the network forward
        and backward and returns the loss.

    Raises:
        ValueError: The network is no classifier in torch.
    """
    if candidate.module is None or not candidate.is_classifier:
        raise ValueError('Training is timed for classifiers in torch only.')
    module = _lay_out(candidate.module.to(device), form).train()
    _compile(candidate, module, form)
    dtype = getattr(torch, form.dtype)
    kind = torch.device(device).type

    def step(x: Tensor) -> Tensor:
        module.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            scores = module(x)
        target = torch.arange(len(x), device=x.device)
        loss = F.cross_entropy(scores.float(), target)
        loss.backward()
        return loss

    return step


def make_pictures(
    batch: int,
    size: tuple[int, int],
    form: Form,
    device: str | torch.device = 'cpu',
    training: bool = False,
) -> Tensor:
    """Make random pictures, the same for every network.

    Args:
        batch (int): Number of pictures.
        size (tuple[int, int]): Height and width in pixels.
        form (Form): Tells dtype and layout.
        device (str or torch.device): Defaults to ``'cpu'``.
        training (bool): Leave the dtype to autocast. Defaults to False.

    Returns:
        Tensor: Normal values, (batch, 3, H, W).
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, *size, generator=generator)
    dtype = torch.float32 if training else getattr(torch, form.dtype)
    layout = (
        torch.channels_last if form.channels_last else torch.contiguous_format
    )
    return x.to(device, dtype).contiguous(memory_format=layout)


def check_finite(output: object, label: str) -> None:
    """Refuse a network that computes nothing of use.

    Args:
        output (object): What it returned.
        label (str): Its name.

    Raises:
        ValueError: A value is infinite or no number.
    """
    if not all(t.isfinite().all() for t in iter_tensors(output)):
        raise ValueError(
            f'{label} gives values that are not finite; it is not timed.'
        )


@contextmanager
def compiler_settings(freezing: bool, count: int) -> Iterator[None]:
    """Set what torch.compile needs for several networks in one process.

    Args:
        freezing (bool): Compile weights as constants, for prediction.
        count (int): How many times one network's code may be compiled.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    # Networks of one family share their code, and count against one limit.
    limit = 'recompile_limit'
    if not hasattr(dynamo, limit):
        limit = 'cache_size_limit'  # torch < 2.7
    count = max(count, getattr(dynamo, limit))
    with dynamo.patch({limit: count}), inductor.patch(freezing=freezing):
        yield


def _fuse(module: nn.Module) -> nn.Module:
    """Fuse what a network itself can fuse, by the libraries' own ways."""
    if type(module).__module__.startswith('timm.'):
        from timm.utils.model import reparameterize_model

        return reparameterize_model(module, inplace=True)
    for part in (module, getattr(module, 'backbone', None)):
        if hasattr(part, 'switch_to_deploy'):
            part.switch_to_deploy()
            break
    return module


def _lay_out(module: nn.Module, form: Form) -> nn.Module:
    if form.channels_last:
        return module.to(memory_format=torch.channels_last)
    return module


def _compile(candidate: Candidate, module: nn.Module, form: Form) -> None:
    if form.compile is not None:
        import torch._inductor.config as inductor

        if inductor.freezing:
            hold_weights_constant(module)
        for part in candidate.compiled(module):
            # One size and batch at a time, so nothing has to be symbolic.
            part.compile(dynamic=False, mode=form.compile)

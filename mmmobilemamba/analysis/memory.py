"""Peak memory of a network's forward pass."""

import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from .candidates import build_candidate
from .preparation import make_pictures, prepare
from .requests import Request


def cuda_peak(
    call: Callable[[], object],
    module: nn.Module | None,
    device: str | torch.device,
) -> int:
    """Return the GPU memory of a network and of one call.

    Args:
        call (Callable): Runs the network.
        module (nn.Module, optional): The network, for its weights.
        device (str or torch.device): A CUDA device, on which other networks
            may lie too.

    Returns:
        int: Bytes of weights and of what torch allocates at most beside what
        lay there before the call.
    """
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    if module is None:
        return peak
    tensors = [*module.parameters(), *module.buffers()]
    return peak + sum(tensor.nbytes for tensor in tensors)


def process_peak(
    request: Request, batch: int, threads: int | None = None
) -> int | None:
    """Return what a network adds to the memory of a fresh process.

    Args:
        request (Request): Network.
        batch (int): Pictures of the forward pass.
        threads (int, optional): Threads of torch. Defaults to None.

    Returns:
        int: Bytes of resident memory at the peak of the second forward pass,
        beyond what the process had with the libraries loaded. None where
        the system does not tell, which is everywhere but Linux.
    """
    # Started afresh: memory that this process once had counts in a fork.
    context = get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_of_forward, request, batch, threads).result()


def _peak_of_forward(request, batch, threads) -> int | None:
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.no_grad():
        # Loads the libraries and starts the threads.
        torch.nn.Conv2d(3, 8, 3)(torch.ones(1, 3, 32, 32))
        candidate = build_candidate(request)
        weights = 0
        if candidate.module is not None:
            tensors = candidate.module.state_dict().values()
            weights = sum(tensor.nbytes for tensor in tensors)
        before = _status('VmRSS')
        call = prepare(candidate, request.form)
        x = candidate.convert(
            make_pictures(batch, candidate.size, request.form)
        )
        call(x)
        try:
            Path('/proc/self/clear_refs').write_text('5')  # forget the peak
        except OSError:
            return None
        call(x)
    peak = _status('VmHWM')
    if before is None or peak is None:
        return None
    return peak - before + weights


def _status(name: str) -> int | None:
    """Return an entry of Linux's report on this process, in bytes."""
    path = Path('/proc/self/status')
    if not path.is_file():
        return None
    found = re.search(rf'^{name}:\s+(\d+) kB$', path.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None

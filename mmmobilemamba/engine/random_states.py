"""Random numbers that a resumed training goes on with.

The main process has states, which a checkpoint keeps. Worker processes start
anew with each run, so their numbers follow from the batch that they load.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import get_worker_info


def get_random_states() -> dict:
    """Return the states of Python, NumPy, torch and CUDA in this process.

    Returns:
        dict: Nothing but tensors, numbers and tuples, so that
        ``torch.load(weights_only=True)`` reads it.
    """
    _, key, pos, has_gauss, gauss = np.random.get_state()
    states = dict(
        python=random.getstate(),
        numpy=dict(
            key=torch.from_numpy(key.astype(np.int64)),
            pos=int(pos),
            has_gauss=int(has_gauss),
            gauss=float(gauss),
        ),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict) -> None:
    """Set what :func:`get_random_states` returned."""
    random.setstate(states['python'])
    # A checkpoint is loaded to the device of the model.
    key, *rest = states['numpy'].values()
    key = key.cpu().numpy().astype(np.uint32)
    np.random.set_state(('MT19937', key, *rest))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


@dataclass
class SeededBatch:
    """Indices of a batch; a worker that reads them seeds itself.

    Args:
        indices (list[int]): Indices of the samples.
        seed (tuple[int]): Non-negative numbers that name the batch.
    """

    indices: list[int]
    seed: tuple[int, ...]

    def __iter__(self) -> Iterator[int]:
        # Without workers the samples share the numbers of the main process.
        if get_worker_info() is not None:
            words = np.random.SeedSequence(self.seed).generate_state(8)
            random.seed(words[:4].tobytes())
            np.random.seed(words[4:6])
            torch.default_generator.manual_seed(int(words[6:].view('u8')[0]))
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class ResumableBatches:
    """Batch sampler that starts anywhere and numbers the batches of a run.

    Args:
        batches (Iterable): Batch sampler to take the indices from; its other
            attributes are found here as well.
        seed (int): Seed of the run.
        rank (int): Number of the process.
    """

    def __init__(self, batches: Iterable, seed: int, rank: int) -> None:
        self.batches = batches
        self.seed = (seed, rank)
        # Batches of the whole run before the next one.
        self.number = 0
        # Batches that the next pass leaves out, without loading them.
        self.skip = 0

    def __iter__(self) -> Iterator[SeededBatch]:
        skip, self.skip = self.skip, 0
        for indices in itertools.islice(self.batches, skip, None):
            number = self.number
            self.number += 1
            yield SeededBatch(list(indices), (*self.seed, number))

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str):
        if name == 'batches':  # not there yet: a copy in the making
            raise AttributeError(name)
        return getattr(self.batches, name)

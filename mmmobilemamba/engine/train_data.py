"""Where a training stands in its data, and how another run goes on there.

The main process has random states, which a checkpoint keeps. Workers start
anew with each run, so their numbers follow from the batch that they load.
"""

import itertools
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, IterableDataset, get_worker_info


def get_random_states() -> dict:
    """Return the states of Python, NumPy, torch and CUDA in this process."""
    states = dict(
        python=random.getstate(),
        numpy=np.random.get_state(),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict) -> None:
    """Set what :func:`get_random_states` returned."""
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    # A checkpoint is loaded to the device of the model.
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


class SeededBatch(list):
    """Indices of a batch; a worker that reads them seeds itself.

    ``seed`` are non-negative numbers that name the batch.
    """

    def __init__(self, indices: Iterable[int], seed: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        # Without workers the samples share the numbers of the main process.
        if get_worker_info() is not None:
            words = np.random.SeedSequence(self.seed).generate_state(8)
            random.seed(words[:4].tobytes())
            np.random.seed(words[4:6])
            torch.default_generator.manual_seed(int(words[6:].view('u8')[0]))
        return super().__iter__()


class ResumableBatches:
    """Batch sampler that starts anywhere and numbers the batches of a run.

    Args:
        batches (Iterable): Batch sampler to take the indices from.
        seed (tuple[int]): Seed of the run and number of the process.
    """

    def __init__(self, batches: Iterable, seed: tuple[int, ...]) -> None:
        self.batches = batches
        self.sampler = getattr(batches, 'sampler', None)
        self.seed = seed
        # Batches of the whole run before the next one.
        self.number = 0
        # Batches that the next pass leaves out, without loading them.
        self.skip = 0

    def __iter__(self) -> Iterator[SeededBatch]:
        skip, self.skip = self.skip, 0
        for indices in itertools.islice(self.batches, skip, None):
            self.number += 1
            yield SeededBatch(indices, (*self.seed, self.number - 1))

    def __len__(self) -> int:
        return len(self.batches)


class TrainData:
    """Give a training's data loader numbered batches and a place to start.

    The loader stays the same object, with a sampler that no worker has drawn
    from yet: loops that count iterations start theirs before any hook is
    called.

    Args:
        runner (Runner): Runner whose training is about to start.
        position (dict): What :meth:`position` returned before the checkpoint
            was written; empty at the beginning.
    """

    def __init__(self, runner: Runner, position: dict) -> None:
        self.loop = runner.train_loop
        self.loader = self.loop.dataloader
        self.by_epoch = isinstance(self.loop, EpochBasedTrainLoop)
        self.sampler_epoch = position.get('sampler_epoch', 0)
        seed = position.get('sampler_seed')
        if seed is None:
            seed = getattr(self.loader.sampler, 'seed', runner.seed)
        cfg = runner._train_dataloader
        sampler = DATA_SAMPLERS.build(
            cfg['sampler'],
            default_args=dict(dataset=self.loader.dataset, seed=seed),
        )
        plain = dict(type=BatchSampler, drop_last=self.loader.drop_last)
        batches = DATA_SAMPLERS.build(
            cfg.get('batch_sampler') or plain,
            default_args=dict(sampler=sampler, batch_size=cfg['batch_size']),
        )
        seeds = int(runner.seed), get_rank()
        self.batches = ResumableBatches(batches, seeds)
        self.batches.skip = position.get('skip', 0)
        # DataLoader refuses what would change under a running iterator, and
        # none runs on.
        object.__setattr__(self.loader, 'sampler', sampler)
        object.__setattr__(self.loader, 'batch_sampler', self.batches)
        # Iterators draw a number; it shall not come from the training's.
        self.loader.generator = torch.Generator()

    @staticmethod
    def can_follow(runner: Runner) -> bool:
        """Tell whether the loop and the data are of mmengine's kinds."""
        loop, cfg = runner.train_loop, runner._train_dataloader
        return (
            isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop))
            and isinstance(cfg, dict)
            and isinstance(cfg['sampler'], dict)
            and not isinstance(loop.dataloader.dataset, IterableDataset)
        )

    def start_pass(self, runner: Runner) -> None:
        """Make the loader ready; every ``before_train_epoch`` comes here."""
        self.batches.number = runner.iter
        if self.by_epoch:
            return
        # Where the data end, a new pass begins, with an order of its own.
        if hasattr(self.loader.sampler, 'set_epoch'):
            self.loader.sampler.set_epoch(self.sampler_epoch)
        kind = type(self.loop.dataloader_iterator)
        self.loop.dataloader_iterator = None
        self.loader._iterator = None  # persistent workers
        self.iterator = kind(self.loader)
        self.iterator._epoch = self.sampler_epoch
        # The loop first takes as many steps as it has done.
        done = itertools.repeat(None, runner.iter)
        self.loop.dataloader_iterator = itertools.chain(done, self.iterator)

    def position(self, epoch: int, iteration: int) -> dict:
        """Return what a resumed run has to know, after so many of both."""
        passes = epoch if self.by_epoch else self.iterator._epoch
        return dict(
            sampler_seed=getattr(self.loader.sampler, 'seed', None),
            sampler_epoch=passes,
            skip=iteration - passes * len(self.loader),
            length=len(self.loader),
        )

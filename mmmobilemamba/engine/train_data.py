"""Where a training stands in its data, and how another run goes on there."""

from collections.abc import Iterable, Iterator

from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Generator
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
)

from .random_states import ResumableBatches


class TrainData:
    """Give a training's data loader numbered batches and a place to start.

    The loader stays the same object, with a sampler that no worker has drawn
    from yet: loops that count iterations start theirs before any hook is
    called.

    Args:
        runner (Runner): Runner whose training is about to start.
        position (dict, optional): What :meth:`position` returned before the
            checkpoint was written. Defaults to None, the beginning.
    """

    def __init__(self, runner: Runner, position: dict | None = None) -> None:
        self.loop = runner.train_loop
        self.loader: DataLoader = self.loop.dataloader
        self.by_epoch = isinstance(self.loop, EpochBasedTrainLoop)
        position = position or {}
        seed = position.get('sampler_seed')
        if seed is None:
            seed = getattr(self.loader.sampler, 'seed', runner.seed)
        sampler, batches = _new_samplers(runner, self.loader, seed)
        self.batches = ResumableBatches(batches, int(runner.seed), get_rank())
        self.batches.skip = position.get('skip', 0)
        self.sampler_epoch = position.get('sampler_epoch', 0)
        # DataLoader refuses what would change under a running iterator, and
        # none runs on.
        object.__setattr__(self.loader, 'sampler', sampler)
        object.__setattr__(self.loader, 'batch_sampler', self.batches)
        # Iterators draw a number; it shall not come from the training's.
        self.loader.generator = Generator()

    @staticmethod
    def obstacle(runner: Runner) -> str:
        """Say why the data of a runner cannot be followed, if so."""
        loop, cfg = runner.train_loop, runner._train_dataloader
        if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
            return f'{type(loop).__name__} is a loop of its own kind'
        if not isinstance(cfg, dict) or not isinstance(cfg['sampler'], dict):
            return 'train_dataloader or its sampler is no config'
        if isinstance(loop.dataloader.dataset, IterableDataset):
            return 'the data set has no indices'
        return ''

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
        iterator = kind(self.loader)
        iterator._epoch = self.sampler_epoch
        self.loop.dataloader_iterator = _Advanced(iterator, runner.iter)

    def position(self, epoch: int, iteration: int) -> dict:
        """Return what a resumed run has to know, after so many of both."""
        passes = epoch
        if not self.by_epoch:
            passes = self.loop.dataloader_iterator.iterator._epoch
        return dict(
            sampler_seed=getattr(self.loader.sampler, 'seed', None),
            sampler_epoch=passes,
            skip=iteration - passes * len(self.loader),
            length=len(self.loader),
        )


class _Advanced:
    """Iterator at the right place, for a loop that first takes steps to it."""

    def __init__(self, iterator: Iterator, steps: int) -> None:
        self.iterator = iterator
        self.steps = steps

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        if self.steps > 0:
            self.steps -= 1
            return None
        return next(self.iterator)


def _new_samplers(
    runner: Runner, loader: DataLoader, seed: int | None
) -> tuple[Sampler, Iterable]:
    """Build the samplers of a loader again, as the Runner did."""
    cfg = runner._train_dataloader
    sampler = DATA_SAMPLERS.build(
        cfg['sampler'], default_args=dict(dataset=loader.dataset, seed=seed)
    )
    batch_cfg = cfg.get('batch_sampler')
    if batch_cfg is None:
        return sampler, BatchSampler(
            sampler, loader.batch_size, loader.drop_last
        )
    return sampler, DATA_SAMPLERS.build(
        batch_cfg,
        default_args=dict(sampler=sampler, batch_size=cfg['batch_size']),
    )

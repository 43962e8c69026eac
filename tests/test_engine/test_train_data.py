"""Random numbers of loading processes do not depend on their number."""

import random

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader

from mmmobilemamba.engine.train_data import ResumableBatches


class Draws:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return [random.random(), np.random.rand(), torch.rand(()).item()]


def load(workers, number=0, skip=0, seed=(3, 0)):
    batches = ResumableBatches(BatchSampler(range(8), 2, False), seed)
    batches.number, batches.skip = number, skip
    options = dict(num_workers=workers, persistent_workers=True)
    loader = DataLoader(Draws(), batch_sampler=batches, **options)
    return [torch.stack(x).tolist() for _ in range(2) for x in loader]


def test_worker_numbers_follow_from_the_batch():
    wanted = load(2)
    assert len(np.unique(wanted)) == 2 * 8 * 3
    assert load(3) == wanted
    # The third batch is another worker's now.
    assert load(2, number=3, skip=3) == wanted[3:]
    for seed in ((4, 0), (3, 1)):
        assert load(1, seed=seed)[0] != wanted[0]

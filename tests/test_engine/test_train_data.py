import random

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmmobilemamba.engine.train_data import ResumableBatches


class Draws(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        draws = random.random(), np.random.rand(), torch.rand(()).item()
        return torch.tensor([index, *draws])


def load(workers, number=0, skip=0, seed=(3, 0), passes=1):
    batches = ResumableBatches(BatchSampler(range(8), 2, False), seed)
    batches.number, batches.skip = number, skip
    loader = DataLoader(
        Draws(),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=True,
        generator=torch.Generator(),
    )
    return [x.tolist() for _ in range(passes) for x in loader]


def test_worker_numbers_follow_from_the_batch():
    wanted = load(2, passes=2)
    assert len({row[1] for batch in wanted for row in batch}) == 16
    assert load(3, passes=2) == wanted
    # The third batch is another worker's now.
    assert load(2, number=3, skip=3, passes=2) == wanted[3:]
    for other in (dict(seed=(4, 0)), dict(seed=(3, 1)), dict(number=1)):
        assert load(1, **other)[0] != wanted[0]

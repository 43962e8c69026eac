"""A training of a second that uses every source of random numbers.

Sixteen numbers with noise from Python, NumPy and torch in the data, dropout in
the model; EMA, AdamW and a schedule. It needs mmengine only.
"""

import random
import uuid

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.utils.data import Dataset

LENGTH = 8  # batches of two


@DATASETS.register_module(force=True)
class ToyNumbers(Dataset):
    def __len__(self):
        return 2 * LENGTH

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return dict(inputs=torch.full((4,), index + noise) / 16)


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    def __init__(self, ballast):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)
        )
        self.register_buffer('ballast', torch.rand(ballast))

    def forward(self, inputs, mode='tensor'):
        output = self.net(torch.stack(inputs))
        if mode == 'loss':
            return dict(loss=(output.sum(1) - 1).square().mean())
        return [output]


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        torch.rand(3)  # It should not matter.
        self.results += [x.sum().item() for x in data_samples[0]]

    def compute_metrics(self, results):
        return dict(acc=float(np.mean(results)))


class StoppedError(Exception):
    """Raised in place of a kill."""


@HOOKS.register_module(force=True)
class StopHook(Hook):
    """Stop at an iteration, before its training or a validation."""

    def __init__(self, iteration, place='before_train_iter'):
        self.iteration = iteration
        setattr(self, place, self.stop)

    def stop(self, runner, **kwargs):
        if runner.iter == self.iteration:
            raise StoppedError


def toy_config(
    work_dir,
    loop='epoch',
    length=4,
    sampler='DefaultSampler',
    loading=None,
    seed=3,
    ballast=0,
    hooks=(),
    **checkpoint,
):
    """Return a config; ``ballast`` numbers make its checkpoints larger."""
    by_epoch = loop == 'epoch'
    loader = dict(dataset=dict(type='ToyNumbers'), batch_size=2)
    loader['sampler'] = dict(type=sampler, shuffle=True)
    ordered = dict(type='DefaultSampler', shuffle=False)
    hook = dict(type='mmmobilemamba.ResumableCheckpointHook', interval=1)
    ends = {'max_epochs' if by_epoch else 'max_iters': length}
    return dict(
        model=dict(type='ToyModel', ballast=ballast),
        work_dir=str(work_dir),
        train_dataloader=dict(loader, **(loading or {})),
        val_dataloader=dict(loader, sampler=ordered),
        train_cfg=dict(by_epoch=by_epoch, val_interval=length // 2, **ends),
        val_cfg=dict(),
        val_evaluator=dict(type='ToyMetric'),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9),
            dict(type='StepLR', step_size=2, gamma=0.5, by_epoch=by_epoch),
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1000),
            checkpoint=dict(hook, by_epoch=by_epoch) | checkpoint,
        ),
        custom_hooks=[dict(type='EMAHook'), *hooks],
        randomness=dict(seed=seed),
        default_scope='mmengine',
    )


def train_toy(work_dir, **kwargs):
    """Train or go on, in a run of a name of its own; return the runner."""
    name = f'{work_dir.name}_{uuid.uuid4().hex}'
    cfg = toy_config(work_dir, **kwargs)
    runner = Runner(resume=True, experiment_name=name, **cfg)
    runner.train()
    return runner


def check_equal(*contents):
    """Check for equal bits in nested dicts and lists."""
    arrays = [apply_to(x, torch.is_tensor, Tensor.numpy) for x in contents]
    np.testing.assert_equal(*arrays)

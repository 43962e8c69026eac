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

# Batches of two.
LENGTH = 8


@DATASETS.register_module(force=True)
class ToyNumbers(Dataset):
    metainfo = dict(classes=('number',))

    def __len__(self):
        return 2 * LENGTH

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return dict(inputs=torch.full((4,), index + noise) / 16)


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """Args: ballast (int): Numbers that make the checkpoint larger."""

    def __init__(self, ballast=0):
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
    """Stop after an iteration, or in a validation."""

    priority = 'LOWEST'

    def __init__(self, iteration=None, validation=None):
        self.iteration, self.validation = iteration, validation

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        if runner.iter + 1 == self.iteration:
            raise StoppedError

    def before_val(self, runner):
        if self.validation and runner.iter == self.validation:
            raise StoppedError


def toy_config(
    work_dir,
    loop='epoch',
    length=4,
    interval=1,
    workers=0,
    persistent=False,
    sampler='DefaultSampler',
    seed=3,
    model=None,
    hooks=(),
    **checkpoint,
):
    """Return the config of a training of ``length`` epochs or iterations."""
    by_epoch = loop == 'epoch'
    loader = dict(
        dataset=dict(type='ToyNumbers'),
        batch_size=2,
        num_workers=workers,
        persistent_workers=persistent,
        sampler=dict(type=sampler, shuffle=True),
    )
    return dict(
        model=model or dict(type='ToyModel'),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=dict(
            dataset=dict(type='ToyNumbers'),
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(
            by_epoch=by_epoch,
            val_interval=length // 2,
            **{'max_epochs' if by_epoch else 'max_iters': length},
        ),
        val_cfg=dict(),
        val_evaluator=dict(type='ToyMetric'),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9),
            dict(type='StepLR', step_size=2, gamma=0.5, by_epoch=by_epoch),
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1000),
            checkpoint={
                'type': 'mmmobilemamba.ResumableCheckpointHook',
                'interval': interval,
                'by_epoch': by_epoch,
                **checkpoint,
            },
        ),
        custom_hooks=[dict(type='EMAHook'), *hooks],
        randomness=dict(seed=seed),
        default_scope='mmengine',
    )


def train_toy(work_dir, resume=True, register=(), **kwargs):
    """Train, in a run of a name of its own, and return the runner."""
    cfg = toy_config(work_dir, **kwargs)
    name = f'{work_dir.name}_{uuid.uuid4().hex}'
    runner = Runner(resume=resume, experiment_name=name, **cfg)
    for hook in register:
        runner.register_hook(hook)
    runner.train()
    return runner


def check_equal(one, other):
    """Check for equal bits in nested dicts and lists."""
    one, other = (
        apply_to(x, lambda x: isinstance(x, Tensor), Tensor.numpy)
        for x in (one, other)
    )
    np.testing.assert_equal(one, other)

"""The quickstart's Semantic FPN in small, and hooks that look on."""

import os
import signal
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/quickstart/fpn_mobilemamba-nano_shapes-160px.py'


def small_fpn(shapes, work_dir, channels=(32, 40, 48), depths=(1, 1, 1)):
    """Return its config, for one process that keeps no checkpoint."""
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.arch = dict(channels=channels, depths=depths)
    cfg.model.neck.in_channels = channels
    cfg.default_hooks.checkpoint = cfg.param_scheduler = None
    cfg.visualizer.vis_backends = None
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(shapes)
        loader.dataset.pipeline = [
            step
            for step in loader.dataset.pipeline
            if step.type not in ('RandomFlip', 'Resize')
        ]
    return cfg


@OPTIM_WRAPPERS.register_module(force=True)
class KeepGradients(OptimWrapper):
    """Keep the gradients of every step, as the optimizer gets them."""

    def step(self, **kwargs):
        (group,) = self.optimizer.param_groups
        found = [parameter.grad.clone() for parameter in group['params']]
        self.kept = [*getattr(self, 'kept', []), found]
        super().step(**kwargs)


@HOOKS.register_module(force=True)
class WatchHook(Hook):
    """Keep norms in eval mode, and save what was seen; or end a process."""

    def __init__(self, end=False):
        self.end, self.losses = end, []

    def before_train(self, runner):
        # The published initial values silence every residual branch.
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm) and not module.weight.any():
                torch.nn.init.constant_(module.weight, 0.5)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        if self.end and batch_idx == 1 and runner.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses.append(float(outputs['loss']))

    def after_val_epoch(self, runner, metrics=None):
        seen = dict(
            losses=self.losses,
            gradients=runner.optim_wrapper.kept,
            metrics={key: float(x) for key, x in metrics.items()},
        )
        torch.save(seen, f'{runner.work_dir}/seen_{runner.rank}.pth')

"""The quickstart's Semantic FPN in small, and hooks that look on."""

import os
import signal
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
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
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(shapes)
        steps, dropped = loader.dataset.pipeline, ('RandomFlip', 'Resize')
        loader.dataset.pipeline = [x for x in steps if x.type not in dropped]
    return cfg


def is_norm(module):
    return isinstance(module, _BatchNorm)


@HOOKS.register_module(force=True)
class WatchHook(Hook):
    """Keep norms in eval mode, and save what was seen; or end a process."""

    def __init__(self, end=False):
        self.end, self.losses, self.gradients = end, [], []

    def before_train(self, runner):
        # The published initial values silence every residual branch.
        for norm in filter(is_norm, runner.model.modules()):
            if not norm.weight.any():
                torch.nn.init.constant_(norm.weight, 0.5)
        runner.optim_wrapper.optimizer.register_step_pre_hook(self.keep)

    def keep(self, optimizer, *_):
        parameters = optimizer.param_groups[0]['params']
        self.gradients.append([p.grad.clone() for p in parameters])

    def before_train_iter(self, runner, batch_idx, data_batch):
        for norm in filter(is_norm, runner.model.modules()):
            norm.eval()
        if self.end and batch_idx == 1 and runner.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append(float(outputs['loss']))

    def after_val_epoch(self, runner, metrics=None):
        seen = dict(
            losses=self.losses,
            gradients=self.gradients,
            metrics={key: float(x) for key, x in metrics.items()},
        )
        torch.save(seen, f'{runner.work_dir}/seen_{runner.rank}.pth')

"""Train and evaluate alone, then as two gloo processes on the same batches.

Run as a script: ``python gloo_run.py SHAPES OUT``. Processes are forked after
the imports, which take longest. At last one of two is killed in its second
iteration, and the line printed says how both ended, and how many seconds the
other took for it.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/quickstart/fpn_mobilemamba-nano_shapes-160px.py'
ARCH = dict(channels=(32, 40, 48), depths=(1, 1, 1))
GLOBAL_BATCH = 4


@OPTIM_WRAPPERS.register_module()
class KeepGradients(OptimWrapper):
    """Keep the gradients of every step, as the optimizer gets them."""

    def step(self, **kwargs):
        (group,) = self.optimizer.param_groups
        found = [parameter.grad.clone() for parameter in group['params']]
        self.kept = [*getattr(self, 'kept', []), found]
        super().step(**kwargs)


@HOOKS.register_module()
class Watch(Hook):
    """Keep norms in eval mode, and keep losses and the metric."""

    def __init__(self, end=False):
        self.end, self.losses, self.metrics = end, [], {}

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
        self.metrics = metrics


def make_config(shapes, out, world_size, end):
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = f'{out}/run{world_size}'
    cfg.launcher = 'pytorch' if world_size > 1 else 'none'
    cfg.model.backbone.arch = ARCH
    cfg.model.neck.in_channels = ARCH['channels']
    cfg.model.decode_head.dropout_ratio = 0.0
    cfg.default_hooks.checkpoint = cfg.param_scheduler = None
    cfg.visualizer.vis_backends = None
    cfg.custom_hooks = [dict(type='mmengine.Watch', end=end)]
    cfg.optim_wrapper = dict(
        type='mmengine.KeepGradients', optimizer=dict(type='SGD', lr=0.1)
    )
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(shapes)
        loader.dataset.pipeline = [
            step for step in loader.dataset.pipeline if 'Flip' not in step.type
        ]
    cfg.train_dataloader.batch_size = GLOBAL_BATCH // world_size
    cfg.val_dataloader.batch_size = 2
    return cfg


def work(shapes, out, rank, world_size, end=False):
    """Be one process of a run; write what it saw."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size)
    )
    cfg = make_config(shapes, out, world_size, end)
    setup_distributed(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    (watch,) = [h for h in runner.hooks if isinstance(h, Watch)]
    seen = dict(
        losses=watch.losses,
        gradients=runner.optim_wrapper.kept,
        metrics={key: float(x) for key, x in watch.metrics.items()},
    )
    torch.save(seen, f'{out}/seen{world_size}_{rank}.pth')
    del runner
    leave_distributed()


def in_processes(count, *args):
    """Fork, and return the exit status of each, with the seconds it took."""
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    children = {}
    for rank in range(count):
        child = os.fork()
        if not child:
            try:
                work(*args[:2], rank, count, *args[2:])
            except RuntimeError as error:
                os.write(2, str(error).encode())
                os._exit(1)
            os._exit(0)
        children[child] = rank
    ended = {}
    for _ in children:
        child, status = os.wait()
        ended[children[child]] = (status, time.monotonic())
    return ended


def main(shapes, out):
    import mmseg  # noqa: F401

    for count in (1, 2):
        ended = in_processes(count, shapes, out)
        assert all(not status for status, _ in ended.values()), ended
    ended = in_processes(2, shapes, out, True)
    (other, after), (killed, before) = ended[0], ended[1]
    print(f'ended: {killed} {other} {after - before:.1f}')


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return str(server.getsockname()[1])


if __name__ == '__main__':
    main(*sys.argv[1:])

"""Several processes without CUDA, where mmengine's launcher stops.

It calls ``torch.cuda.set_device`` whatever the device. A process group that
exists before the Runner is made keeps it from doing so.
"""

import gc
import os
import subprocess
from datetime import timedelta

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import distributed, nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmmobilemamba.registry import MODEL_WRAPPERS

_KEYS = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')
# Launcher -> what sets its variables, and which ones stand for those keys.
_LAUNCHERS = {
    'pytorch': ('tools/dist_train.sh or torchrun', _KEYS),
    'slurm': (
        'tools/slurm_train.sh or srun',
        ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    ),
    'mpi': ('mpirun', [f'OMPI_COMM_WORLD_{key}' for key in _KEYS]),
}


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """Train one model in several CPU processes, joined by gloo.

    Synchronised BatchNorm has no CPU form, and torch refuses to wrap it
    there; each process normalises over its own batch instead.

    Args:
        module (nn.Module): Model to wrap.
        broadcast_buffers (bool): As in MMDistributedDataParallel. Defaults to
            False, as in mmengine's Runner.
        device_ids (list, optional): Ignored; mmengine passes the number of
            the process, which means a GPU.
        **kwargs: Further arguments of MMDistributedDataParallel.
    """

    def __init__(
        self,
        module: nn.Module,
        broadcast_buffers: bool = False,
        device_ids: list | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            revert_sync_batchnorm(module),
            broadcast_buffers=broadcast_buffers,
            **kwargs,
        )


def setup_distributed(cfg: Config) -> None:
    """Prepare a config, and the process, for its launcher.

    With a GPU for each process mmengine does everything by itself. On a
    machine without an accelerator the processes are joined by gloo here.

    Args:
        cfg (Config): Config of the run; ``launcher`` is set.

    Raises:
        ValueError: The environment is not that of the launcher, or the
            timeout is no time.
    """
    if cfg.launcher == 'none':
        return
    starter, names = _LAUNCHERS[cfg.launcher]
    unset = [name for name in names if name not in os.environ]
    if unset:
        raise ValueError(
            f'--launcher {cfg.launcher} needs {", ".join(unset)} in the '
            f'environment; start the processes with {starter}.'
        )
    if get_device() != 'cpu':
        return
    for key, name in zip(_KEYS, names):
        os.environ[key] = os.environ[name]
    os.environ.setdefault('MASTER_ADDR', _master_address(cfg.launcher))
    os.environ.setdefault('MASTER_PORT', '29500')
    if not distributed.is_initialized():
        distributed.init_process_group('gloo', **_timeout(cfg))
    # FlexibleRunner asks its strategy; None is DistributedDataParallel's.
    strategy = cfg.get('strategy')
    if strategy is None:
        wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict())
    elif str(strategy.get('type')).endswith('DDPStrategy'):
        wrapper = strategy.setdefault('model_wrapper', ConfigDict())
    else:
        return
    if wrapper.get('type') in (None, 'MMDistributedDataParallel'):
        wrapper.type = 'mmmobilemamba.CPUDistributedDataParallel'
        wrapper.setdefault(
            'find_unused_parameters', cfg.get('find_unused_parameters', False)
        )


def leave_distributed() -> None:
    """Close the process group, if there is one, after the work is done.

    Drop the Runner first: a wrapped model holds the group, whose threads
    would then live into Python's shutdown, where they may abort the process.
    """
    if not distributed.is_initialized():
        return
    _end_loading()
    gc.collect()
    distributed.barrier()
    distributed.destroy_process_group()


def _end_loading() -> None:
    """End the processes of all data loaders.

    Collected as a part of a cycle, an iterator loses its queues first, so that
    its processes never hear of the end: torch waits five seconds for each.
    """
    for item in gc.get_objects():
        if isinstance(item, _MultiProcessingDataLoaderIter):
            item._shutdown_workers()


def _timeout(cfg: Config) -> dict[str, timedelta]:
    """Read after how long a silent process is given up, as mmengine does."""
    env = cfg.get('env_cfg') or {}
    seconds = (env.get('dist_cfg') or {}).get('timeout')
    if seconds is None:
        return {}
    if not isinstance(seconds, (int, float)) or seconds <= 0:
        raise ValueError(
            'env_cfg.dist_cfg.timeout must be a positive number of seconds, '
            f'got {seconds!r}.'
        )
    return dict(timeout=timedelta(seconds=seconds))


def _master_address(launcher: str) -> str:
    """Return the first host of a Slurm job, or this machine."""
    hosts = os.environ.get('SLURM_NODELIST')
    if launcher != 'slurm' or not hosts:
        return '127.0.0.1'
    command = ['scontrol', 'show', 'hostnames', hosts]
    return subprocess.check_output(command, text=True).split()[0]

"""Several processes without CUDA, where mmengine's launcher stops.

It calls ``torch.cuda.set_device`` whatever the device. A process group that
exists before the Runner is made keeps it from doing so.
"""

import gc
import os
import subprocess
from contextlib import suppress
from datetime import timedelta

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import distributed, nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmmobilemamba.registry import MODEL_WRAPPERS

_KEYS = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')
# Launcher -> its variables for those keys.
_VARIABLES = {
    'pytorch': _KEYS,
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': tuple(f'OMPI_COMM_WORLD_{key}' for key in _KEYS),
}


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """Train one model in several CPU processes, joined by gloo.

    Synchronised BatchNorm has no CPU form; each process normalises over its
    own batch instead.

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
    """Join the processes of a launcher by gloo where there is no GPU.

    With a GPU for each process mmengine does everything by itself.

    Args:
        cfg (Config): Config of the run; ``launcher`` is set.

    Raises:
        ValueError: The environment is not that of the launcher.
    """
    if cfg.launcher == 'none':
        return
    values = [os.environ.get(name) for name in _VARIABLES[cfg.launcher]]
    if None in values:
        raise ValueError(
            f'--launcher {cfg.launcher} needs its variables '
            f'{", ".join(_VARIABLES[cfg.launcher])}; start the processes with '
            'tools/dist_train.sh, torchrun, tools/slurm_train.sh or mpirun.'
        )
    if get_device() != 'cpu':
        return
    os.environ.update(zip(_KEYS, values))
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_node()
    os.environ.setdefault('MASTER_PORT', '29500')
    env = cfg.get('env_cfg') or {}
    seconds = (env.get('dist_cfg') or {}).get('timeout')
    # None is torch's half an hour.
    timeout = None if seconds is None else timedelta(seconds=seconds)
    distributed.init_process_group('gloo', timeout=timeout)
    # FlexibleRunner asks its strategy, and makes one of DDP where there is
    # none. Types are names or classes.
    if 'FlexibleRunner' in str(cfg.get('runner_type')):
        cfg.strategy = cfg.get('strategy') or dict(type='DDPStrategy')
    strategy = cfg.get('strategy')
    if strategy is None:
        wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict())
    elif 'DDPStrategy' in str(strategy.get('type')):
        wrapper = strategy.setdefault('model_wrapper', ConfigDict())
    else:
        return
    host = MMDistributedDataParallel
    if wrapper.get('type') in (None, host, host.__name__):
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
    # Collected as a part of a cycle, an iterator loses its queues before its
    # processes hear of the end, and torch waits five seconds for each.
    for item in gc.get_objects():
        if isinstance(item, _MultiProcessingDataLoaderIter):
            item._shutdown_workers()
    gc.collect()
    distributed.barrier()
    distributed.destroy_process_group()
    # mmengine collects results in a folder below and leaves it, empty.
    with suppress(OSError):
        os.rmdir('.dist_test')


def _first_node() -> str:
    """Return the first host of a Slurm job, or this machine."""
    nodes = os.environ.get('SLURM_NODELIST')
    if not nodes:
        return '127.0.0.1'
    command = ['scontrol', 'show', 'hostnames', nodes]
    return subprocess.check_output(command, text=True).split()[0]

"""Starting and leaving runs of several processes."""

import os
import time
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmmobilemamba.engine import distributed

WRAPPER = 'mmmobilemamba.CPUDistributedDataParallel'


@pytest.fixture
def setup(monkeypatch):
    """Give a function that would join processes of Slurm, on a CPU."""
    environment = dict(SLURM_PROCID='3', SLURM_LOCALID='1', SLURM_NTASKS='4')

    def call(variables=(), **options):
        cfg, joined = Config(dict(options, launcher='slurm')), []
        monkeypatch.setattr(os, 'environ', environment | dict(variables))
        monkeypatch.setattr(distributed, 'get_device', lambda: 'cpu')
        monkeypatch.setattr(
            torch.distributed,
            'init_process_group',
            lambda backend, timeout: joined.append((backend, timeout)),
        )
        distributed.setup_distributed(cfg)
        return cfg, joined

    return call


def test_slurm_without_gpus(setup):
    silent = dict(dist_cfg=dict(timeout=60))
    cfg, joined = setup(find_unused_parameters=True, env_cfg=silent)
    assert joined == [('gloo', timedelta(minutes=1))]
    wanted = dict(RANK='3', WORLD_SIZE='4', LOCAL_RANK='1')
    assert os.environ.items() >= wanted.items()
    assert os.environ['MASTER_ADDR'] == '127.0.0.1'
    wanted = dict(type=WRAPPER, find_unused_parameters=True)
    assert cfg.model_wrapper_cfg == wanted
    # One that the config names stays, and the flexible runner has another
    # place for it.
    wrapper = dict(type='MMSeparateDistributedDataParallel')
    assert setup(model_wrapper_cfg=wrapper)[0].model_wrapper_cfg == wrapper
    cfg, _ = setup(strategy=dict(type='DDPStrategy'))
    assert cfg.strategy.model_wrapper.type == WRAPPER


def test_slurm_on_several_nodes(setup, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\nprintf "node3\\nnode4\\n"\n')
    scontrol.chmod(0o755)
    setup(dict(SLURM_NODELIST='node[3-4]', PATH=str(tmp_path)))
    assert os.environ['MASTER_ADDR'] == 'node3'


def test_leaving_does_not_wait_for_loading_processes(tmp_path):
    """torch waits five seconds for each that is collected in a cycle."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1
    )
    loader = DataLoader(range(4), num_workers=2, persistent_workers=True)
    loader.cycle = loader
    assert len(list(loader)) == 4
    del loader
    start = time.monotonic()
    distributed.leave_distributed()
    assert time.monotonic() - start < 5
    assert not torch.distributed.is_initialized()

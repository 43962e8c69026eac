import os
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmmobilemamba.engine import distributed
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)

WRAPPER = 'mmmobilemamba.CPUDistributedDataParallel'


@pytest.fixture
def slurm(monkeypatch):
    """Give what would be joined, and variables of Slurm."""
    joined = []
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(
        torch.distributed,
        'init_process_group',
        lambda *args, **kwargs: joined.append((*args, kwargs)),
    )
    values = dict(SLURM_PROCID='3', SLURM_LOCALID='1', SLURM_NTASKS='4')
    monkeypatch.setattr(os, 'environ', values)
    return SimpleNamespace(joined=joined, environment=values)


def setup(**options):
    cfg = Config(dict(options, launcher='slurm'))
    setup_distributed(cfg)
    return cfg


def test_slurm_without_gpus(slurm):
    cfg = setup(find_unused_parameters=True)
    assert slurm.joined == [('gloo', dict(timeout=None))]
    for key, value in dict(
        RANK='3', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='127.0.0.1'
    ).items():
        assert slurm.environment[key] == value
    assert cfg.model_wrapper_cfg == dict(
        type=WRAPPER, find_unused_parameters=True
    )
    # One that the config names stays, and the flexible runner has another
    # place for it.
    wrapper = dict(type='MMSeparateDistributedDataParallel')
    assert setup(model_wrapper_cfg=wrapper).model_wrapper_cfg == wrapper
    cfg = setup(strategy=dict(type='DDPStrategy'))
    assert cfg.strategy.model_wrapper.type == WRAPPER


def test_slurm_on_several_nodes(slurm, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\nprintf "node3\\nnode4\\n"\n')
    scontrol.chmod(0o755)
    slurm.environment.update(SLURM_NODELIST='node[3-4]', PATH=str(tmp_path))
    setup()
    assert slurm.environment['MASTER_ADDR'] == 'node3'


def test_patience_with_a_silent_process(slurm):
    setup(env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60)))
    assert slurm.joined == [('gloo', dict(timeout=timedelta(minutes=1)))]


def test_leaving_does_not_wait_for_loading_processes(tmp_path):
    """torch waits five seconds for each that is collected in a cycle."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1
    )
    holder = {}
    for number in range(2):
        loader = DataLoader(range(4), num_workers=2, persistent_workers=True)
        holder[number] = loader, holder
        assert len(list(loader)) == 4
    del loader, holder
    start = time.monotonic()
    leave_distributed()
    assert time.monotonic() - start < 5
    assert not torch.distributed.is_initialized()

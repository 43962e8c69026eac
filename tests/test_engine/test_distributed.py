import time
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmmobilemamba.engine import distributed
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)


@pytest.fixture
def group(monkeypatch):
    """Record what would be joined, instead of waiting for the others."""
    joined = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(
        torch.distributed,
        'init_process_group',
        lambda *args, **kwargs: joined.append((*args, kwargs)),
    )
    for name in ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    # Set once, so that what the function sets is undone afterwards.
    for name in ('MASTER_ADDR', 'MASTER_PORT', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return joined


def slurm(monkeypatch, **variables):
    values = dict(SLURM_PROCID='3', SLURM_LOCALID='1', SLURM_NTASKS='4')
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, '')
    for name, value in {**values, **variables}.items():
        monkeypatch.setenv(name, value)


def test_one_process_needs_nothing(group):
    cfg = Config(dict(launcher='none'))
    setup_distributed(cfg)
    assert not group
    assert 'model_wrapper_cfg' not in cfg


def test_slurm_without_gpus(group, monkeypatch):
    slurm(monkeypatch)
    monkeypatch.delenv('SLURM_NODELIST', raising=False)
    cfg = Config(dict(launcher='slurm', find_unused_parameters=True))
    setup_distributed(cfg)
    assert group == [('gloo', {})]
    environment = distributed.os.environ
    assert environment['RANK'] == '3'
    assert environment['WORLD_SIZE'] == '4'
    assert environment['LOCAL_RANK'] == '1'
    assert environment['MASTER_ADDR'] == '127.0.0.1'
    assert cfg.model_wrapper_cfg == dict(
        type='mmmobilemamba.CPUDistributedDataParallel',
        find_unused_parameters=True,
    )
    # One that the config names stays, and the flexible runner has another
    # place for it.
    wrapper = dict(type='MMSeparateDistributedDataParallel')
    strategy = dict(type='DDPStrategy')
    cfg = Config(dict(launcher='slurm', model_wrapper_cfg=wrapper))
    setup_distributed(cfg)
    assert cfg.model_wrapper_cfg == wrapper
    cfg = Config(dict(launcher='slurm', strategy=strategy))
    setup_distributed(cfg)
    wrapper = cfg.strategy.model_wrapper
    assert wrapper.type == 'mmmobilemamba.CPUDistributedDataParallel'


def test_slurm_on_several_nodes(group, monkeypatch, tmp_path):
    slurm(monkeypatch, SLURM_NODELIST='node[3-4]')
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\nprintf "node3\\nnode4\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    setup_distributed(Config(dict(launcher='slurm')))
    assert distributed.os.environ['MASTER_ADDR'] == 'node3'


def test_patience_with_a_silent_process(group, monkeypatch):
    slurm(monkeypatch)
    env = dict(dist_cfg=dict(backend='nccl', timeout=60))
    setup_distributed(Config(dict(launcher='slurm', env_cfg=env)))
    assert group == [('gloo', dict(timeout=timedelta(minutes=1)))]
    for wrong in (0, '1m'):
        env['dist_cfg']['timeout'] = wrong
        with pytest.raises(ValueError, match='dist_cfg.timeout'):
            setup_distributed(Config(dict(launcher='slurm', env_cfg=env)))


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

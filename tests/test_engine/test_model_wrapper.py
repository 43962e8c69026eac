import pytest
import torch
from mmengine.model import is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed, nn


@pytest.fixture
def gloo(tmp_path):
    """One process that forms a group."""
    distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_wraps_synchronised_batch_norm(gloo):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
    weight = model[1].weight
    wrapped = MODEL_WRAPPERS.build(
        dict(
            type='mmmobilemamba.CPUDistributedDataParallel',
            module=model,
            # What mmengine's Runner adds: the number of the process.
            device_ids=[0],
        )
    )
    assert is_model_wrapper(wrapped)
    output = wrapped(torch.randn(2, 3, 4, 4))
    output.square().sum().backward()
    norm = wrapped.module[1]
    assert not isinstance(norm, nn.SyncBatchNorm)
    assert norm.weight is weight
    assert weight.grad is not None

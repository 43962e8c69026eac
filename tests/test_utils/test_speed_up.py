"""Faster forms predict what the trained model predicts."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmmobilemamba.models.backbones import MobileMamba
from mmmobilemamba.ops import find_extension
from mmmobilemamba.utils.speed_up import speed_up


class Model(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)[-1]


@pytest.fixture
def model():
    torch.manual_seed(0)
    arch = dict(channels=(32, 48, 64), depths=(1, 1, 1))
    return Model(MobileMamba(arch=arch)).eval()


@pytest.mark.slow
def test_compiled_code_computes_the_same(model):
    faster = copy.deepcopy(model)
    speed_up(faster, deploy=True, compile=True)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(faster(x), model(x), rtol=1e-4, atol=1e-5)
        with torch.autograd.profiler.profile() as profile:
            faster(x)
    if find_extension().products is not None:
        ran = {event.name for event in profile.function_events}
        assert 'selective_scan::feed_forward' in ran
        assert 'selective_scan::dense_conv2d' in ran
        # Weights are packed while compiling, not at every call.
        assert 'aten::constant_pad_nd' not in ran


def test_what_has_no_such_form_is_named():
    with pytest.raises(ValueError, match='--deploy: Linear'):
        speed_up(Model(nn.Linear(2, 2)), deploy=True)
    with pytest.raises(ValueError, match='--compile'):
        speed_up(Model(None), compile=True)

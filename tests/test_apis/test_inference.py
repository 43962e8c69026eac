"""Faster forms predict what the trained model predicts."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmmobilemamba.apis.inference import optimize_backbone
from mmmobilemamba.models.backbones import MobileMamba


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
    optimize_backbone(faster, deploy=True, compile=True)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(faster(x), model(x), rtol=1e-4, atol=1e-5)


def test_what_has_no_such_form_is_named():
    with pytest.raises(ValueError, match='--deploy: Linear'):
        optimize_backbone(Model(nn.Linear(2, 2)), deploy=True)
    with pytest.raises(ValueError, match='--compile'):
        optimize_backbone(Model(None), compile=True)

"""Inference: the hosts' inferencers, and faster forms."""

import copy

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel

from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import optimize_backbone
from mmmobilemamba.models.backbones import MobileMamba


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        arch = dict(channels=(32, 48, 64), depths=(1, 1, 1))
        self.backbone = MobileMamba(arch=arch)

    def forward(self, x):
        return self.backbone(x)[-1]


@pytest.mark.slow
def test_compiled_code_computes_the_same():
    torch.manual_seed(0)
    model = Model().eval()
    faster = copy.deepcopy(model)
    optimize_backbone(faster, deploy=True, compile=True)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(faster(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('host', 'kind', 'name', 'found'),
    [
        (
            *('mmdet', 'DetInferencer'),
            *('retinanet_mobilemamba-b1_fpn_1x_coco', 'predictions'),
        ),
        (
            *('mmseg', 'MMSegInferencer'),
            *('fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512', 'predictions'),
        ),
        (
            *('mmpretrain', 'ImageClassificationInferencer'),
            *('mobilemamba-t2_8xb128-300e_in1k-192px', 'pred_label'),
        ),
    ],
)
def test_name_of_a_config(host, kind, name, found):
    apis = pytest.importorskip(f'{host}.apis')
    inferencer = getattr(apis, kind)(load_config(name), device='cpu')
    result = inferencer(np.zeros((64, 96, 3), np.uint8))
    assert found in (result[0] if isinstance(result, list) else result)

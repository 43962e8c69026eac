"""One config for backbones of any strides, by changing one name."""

from copy import deepcopy

import pytest
import torch
from mmengine.registry import MODELS

pytest.importorskip('timm')

TINY = dict(
    type='mmmobilemamba.MobileMamba',
    arch=dict(channels=(32, 40, 48), depths=(1, 1, 1)),
)
# Strides 16 to 64, 4 to 32 and 2 to 32.
PEERS = [
    dict(type='mmmobilemamba.TIMMBackbone', model_name=name)
    for name in ('efficientvit_m2', 'mambaout_femto', 'resnet18')
]
# Of Mask R-CNN, of RetinaNet, and of less than there is.
STRIDES = [(4, 8, 16, 32, 64), (8, 16, 32, 64, 128), (32, 64)]


def pyramid(backbone, **neck):
    neck = {'type': 'mmmobilemamba.DeconvFPN', 'out_channels': 16, **neck}
    cfg = dict(type='mmmobilemamba.PyramidBackbone', neck=neck)
    return MODELS.build(dict(cfg, backbone=deepcopy(backbone)))


@pytest.mark.parametrize('strides', STRIDES)
@pytest.mark.parametrize('backbone', [TINY, *PEERS])
def test_output_strides(backbone, strides):
    model = pyramid(backbone, out_strides=strides)
    maps = model(torch.rand(2, 3, 256, 128))
    for m, stride in zip(maps, strides, strict=True):
        assert m.shape == (2, 16, 256 // stride, 128 // stride)
    sum(m.square().mean() for m in maps).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key


def test_other_necks_get_their_channels():
    pytest.importorskip('mmdet')
    model = pyramid(TINY, type='mmdet.FPN', num_outs=4)
    maps = model(torch.rand(2, 3, 128, 128))
    assert [m.shape[1] for m in maps] == [16] * 4


def test_layer_depth_and_deploy():
    model = pyramid(TINY, num_finer=2)
    name = 'stages.1.blocks.0.dw0.conv.weight'
    assert model.get_layer_depth(f'backbone.backbone.{name}', 'backbone.') == (
        model.backbone.get_layer_depth(name)
    )
    depth, layers = model.get_layer_depth('backbone.neck.x', 'backbone.')
    assert depth == layers - 1
    model.switch_to_deploy()
    assert model.backbone.deploy

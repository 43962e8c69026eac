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
# Strides 16 to 64, 4 to 32, 2 to 32, and MobileMamba's own.
BACKBONES = {
    name: dict(type='mmmobilemamba.TIMMBackbone', model_name=name)
    for name in ('efficientvit_m2', 'mambaout_femto', 'resnet18')
} | {'mobilemamba': TINY}
MASK_RCNN = (4, 8, 16, 32, 64)
RETINANET = (8, 16, 32, 64, 128)


def pyramid(backbone, out_strides):
    return dict(
        type='mmmobilemamba.PyramidBackbone',
        backbone=deepcopy(backbone),
        neck=dict(
            type='mmmobilemamba.DeconvFPN',
            out_channels=16,
            out_strides=out_strides,
        ),
    )


@pytest.mark.parametrize('strides', [MASK_RCNN, RETINANET, (32, 64)])
@pytest.mark.parametrize('name', BACKBONES)
def test_output_strides(name, strides):
    model = MODELS.build(pyramid(BACKBONES[name], strides))
    maps = model(torch.rand(2, 3, 256, 128))
    assert [256 // m.shape[2] for m in maps] == list(strides)
    assert [128 // m.shape[3] for m in maps] == list(strides)
    assert all(m.shape[:2] == (2, 16) for m in maps)
    sum(m.square().mean() for m in maps).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key


def test_other_necks_get_their_channels():
    pytest.importorskip('mmdet')
    cfg = pyramid(TINY, ())
    cfg['neck'] = dict(type='mmdet.FPN', out_channels=16, num_outs=4)
    maps = MODELS.build(cfg)(torch.rand(2, 3, 128, 128))
    assert [m.shape[1] for m in maps] == [16] * 4


def test_layer_depth_and_deploy():
    model = MODELS.build(pyramid(TINY, MASK_RCNN))
    name = 'stages.1.blocks.0.dw0.conv.weight'
    assert model.get_layer_depth(f'backbone.backbone.{name}', 'backbone.') == (
        model.backbone.get_layer_depth(name)
    )
    depth, layers = model.get_layer_depth('backbone.neck.x', 'backbone.')
    assert depth == layers - 1
    model.switch_to_deploy()
    assert model.backbone.deploy

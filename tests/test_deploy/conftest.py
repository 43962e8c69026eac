"""Tiny models of every kind, filled so that each part of them matters."""

from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.apis.input_size import input_channels

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

CHANNELS = (32, 40, 48)
BACKBONE = dict(
    _delete_=True,
    type='mmmobilemamba.MobileMamba',
    # Two stages scan, as in every network of the paper.
    arch=dict(
        channels=CHANNELS, depths=(1, 1, 1), global_ratios=(0.8, 0.8, 0.0)
    ),
)
FEW = dict(nms_pre=50, max_per_img=20)
PYRAMID = dict(backbone=BACKBONE, neck=dict(in_channels=CHANNELS))
MODELS = dict(
    classifier=(
        'own_data/mobilemamba-t2_image-folders-64px',
        dict(
            backbone=dict(BACKBONE, out_indices=(2,)),
            head=dict(in_channels=CHANNELS[-1]),
        ),
    ),
    segmentor=('quickstart/fpn_mobilemamba-nano_shapes-160px', PYRAMID),
    retinanet=(
        'own_data/retinanet_mobilemamba-t2_voc-192px',
        dict(backbone=dict(backbone=BACKBONE), test_cfg=FEW),
    ),
    mask_rcnn=(
        'quickstart/mask-rcnn_mobilemamba-nano_shapes-160px',
        dict(PYRAMID, test_cfg=dict(rpn=FEW, rcnn=dict(max_per_img=8))),
    ),
)


@pytest.fixture(scope='session')
def fill():
    """Give a function that lets every branch count, and values their scale."""

    @torch.no_grad()
    def call(model, heads=('rpn_head', 'roi_head.bbox_head', 'bbox_head')):
        for norm in model.modules():
            if isinstance(norm, _BatchNorm):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.3, 0.3)
                norm.momentum = 1.0
        for name, value in model.named_parameters():
            if name.startswith(tuple(heads)) and value.dim() > 1:
                nn.init.normal_(value, std=value[0].numel() ** -0.5)
        backbone = getattr(model.train(), 'backbone', model)
        backbone(torch.randn(4, input_channels(backbone), 192, 192))
        return model.eval()

    return call


@pytest.fixture(scope='session')
def make_model(repo, fill):
    """Give a function that builds a tiny model by its name."""
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(library)

    @cache
    def make(name, **changes):
        torch.manual_seed(0)
        path, model = MODELS[name]
        cfg = load_config(repo / f'configs/{path}.py')
        cfg.merge_from_dict(deepcopy(dict(model=model)))
        cfg.merge_from_dict(changes)
        return fill(build_model(cfg))

    return make


@pytest.fixture(scope='session')
def export(make_model, tmp_path_factory):
    """Give a function that exports a tiny model, once for all tests."""
    from mmmobilemamba.deploy.arguments import ExportOptions
    from mmmobilemamba.deploy.export import export_model

    @cache
    def call(name, **options):
        path = tmp_path_factory.mktemp('exported') / 'model.onnx'
        kind = name if name in ('classifier', 'segmentor') else 'detector'
        options = ExportOptions((96, 80), **options)
        return path, export_model(make_model(name), kind, path, options)

    return call

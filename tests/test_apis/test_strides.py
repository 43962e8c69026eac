"""Heads that count on other strides than they get are named."""

from functools import partial

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.apis.input_size import input_channels
from mmmobilemamba.apis.strides import check_strides

pytest.importorskip('mmdet')

CHANNELS = [16, 24, 32]
BARE = dict(
    type='mmmobilemamba.MobileMamba',
    arch=dict(channels=CHANNELS, depths=(1, 1, 1)),
)
TIMM = dict(type='mmmobilemamba.TIMMBackbone', model_name='resnet18')
FPN = dict(
    type='FPN',
    in_channels=CHANNELS,
    out_channels=256,
    num_outs=5,
    add_extra_convs='on_input',
)
DECONV = partial(dict, type='mmmobilemamba.DeconvFPN', out_channels=256)
PYRAMID = partial(dict, type='mmmobilemamba.PyramidBackbone', backbone=BARE)
REAL = [16, 32, 64, 128, 256]
RETINA = 'retinanet/retinanet_r50_fpn_1x_coco'
FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'
FCOS = 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'
MASK2FORMER = 'mask2former/mask2former_r50_8xb2-lsj-50e_coco'
YOLACT = 'yolact/yolact_r50_1xb8-55e_coco'
FINE = [4, 8, 16, 32, 64]
ANCHORS = 'bbox_head.anchor_generator.strides'
ROI_STRIDES = 'roi_head.bbox_roi_extractor.featmap_strides'
SHORT = {ANCHORS: [8, 16, 32, 64]}
FEW_ROIS = {ROI_STRIDES: [4, 8]}


def build(base, backbone=None, neck=None, changes=None):
    cfg = get_config(f'mmdet::{base}.py')
    if backbone:
        cfg.model['backbone'], cfg.model['neck'] = backbone, neck
    cfg.merge_from_dict({f'model.{k}': v for k, v in (changes or {}).items()})
    with DefaultScope.overwrite_default_scope('mmdet'):
        import mmdet.models  # noqa: F401

        return MODELS.build(cfg.model)


NEW_RPN = {'rpn_head.anchor_generator.strides': REAL}
NEW_INPUT = {'panoptic_head.in_channels': CHANNELS}
HEAD = 'model.bbox_head 8, 16 16, 32 DeconvFPN'
RPN = 'model.rpn_head 4, 8 2, 4 DeconvFPN'
ROIS = f'model.{ROI_STRIDES.rpartition(".")[0]} 4, 8 16, 32'
DECODER = 'model.panoptic_head.pixel_decoder 4, 8 16, 32 DeconvFPN'
R18_FPN = dict(FPN, in_channels=[64, 64, 128, 256, 512])
R50_FPN = dict(FPN, in_channels=[256, 512, 1024, 2048])


@pytest.mark.parametrize(
    ('base', 'parts', 'changes', 'named'),
    [
        (RETINA, (BARE, FPN), {}, HEAD),
        (FCOS, (BARE, FPN), {}, HEAD),
        (FASTER, (BARE, FPN), NEW_RPN, ROIS),
        (FASTER, (TIMM, R18_FPN), {}, RPN),
        (RETINA, (PYRAMID(neck=DECONV(num_coarser=2)), None), {}, HEAD),
        (MASK2FORMER, (BARE, None), NEW_INPUT, DECODER),
        (RETINA, (BARE, R50_FPN), {}, 'FPN 256, 512 16, 24, 32 DeconvFPN'),
        # Strides that are no powers of two.
        (YOLACT, (BARE, FPN), {}, '110.0 out_strides=[8, 64, 128])'),
    ],
)
def test_wrong_strides_are_named(base, parts, changes, named):
    with pytest.raises(ValueError) as error:
        check_strides(build(base, *parts, changes=changes))
    said = str(error.value)
    assert all(part in said for part in named.split()), said


@pytest.mark.parametrize(
    ('base', 'parts', 'changes'),
    [
        (RETINA, (BARE, FPN), {ANCHORS: REAL}),
        (RETINA, (BARE, DECONV(in_channels=CHANNELS, num_finer=1)), SHORT),
        (FASTER, (PYRAMID(neck=DECONV(out_strides=FINE)), None), FEW_ROIS),
        # MMDetection's own: no strides, semantic RoIs, sizes that are no
        # powers of two.
        ('detr/detr_r50_8xb2-150e_coco', (), {}),
        ('htc/htc_r50_fpn_1x_coco', (), {}),
        ('ssd/ssd300_coco', (), {}),
        # Its first convolution has four pixels of three channels.
        ('yolox/yolox_tiny_8xb8-300e_coco', (), {}),
    ],
)
def test_right_ones_pass(base, parts, changes):
    model = build(base, *parts, changes=changes)
    assert input_channels(model) == 3
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    check_strides(model)
    assert torch.equal(torch.get_rng_state(), state)
    # MMDetection leaves some weights of the SSD to chance until it begins.
    same = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)
    same(dict(model.state_dict()), before)
    assert model.training and model.backbone.training


def test_strides_that_cannot_be_measured_pass(monkeypatch):
    model = build(RETINA, BARE, FPN, changes={})

    def fail(x):
        raise RuntimeError('only with a GPU')

    monkeypatch.setattr(model.backbone, 'forward', fail)
    check_strides(model)

"""One detector config for backbones of any strides, by changing one name."""

from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from mmmobilemamba.models import DeconvFPN

pytest.importorskip('timm')

TINY = dict(
    type='mmmobilemamba.MobileMamba',
    arch=dict(channels=(32, 40, 48), depths=(1, 1, 1)),
)
# Strides 16 to 64, 2 to 32, 4 to 32, 2 to 32, and MobileMamba's own.
BACKBONES = {
    name: dict(type='mmmobilemamba.TIMMBackbone', model_name=name)
    for name in (
        'efficientvit_m2',
        'mobilenetv2_100',
        'mambaout_femto',
        'resnet18',
    )
} | {'mobilemamba': TINY}
MASK_RCNN = (4, 8, 16, 32, 64)
RETINANET = (8, 16, 32, 64, 128)
SEGMENTOR = (4, 8, 16, 32)


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
    assert model.out_strides == list(strides)
    assert model.out_channels == [16] * len(strides)
    maps = model(torch.rand(2, 3, 256, 128))
    assert [256 // m.shape[2] for m in maps] == list(strides)
    assert [128 // m.shape[3] for m in maps] == list(strides)
    assert all(m.shape[:2] == (2, 16) for m in maps)
    sum(m.square().mean() for m in maps).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key


@pytest.mark.parametrize('name', BACKBONES)
@torch.no_grad()
def test_odd_sizes(name):
    """Levels of the backbone round up; made ones double what they start at."""
    model = MODELS.build(pyramid(BACKBONES[name], MASK_RCNN)).eval()
    finest = max(min(model.backbone.out_strides), 4)
    for height, width in ((101, 150), (97, 64)):
        maps = model(torch.rand(1, 3, height, width))
        for stride, m in zip(MASK_RCNN, maps, strict=True):
            for side, got in zip((height, width), m.shape[2:], strict=True):
                if stride >= finest:
                    assert got == -(-side // stride)
                else:
                    assert got == -(-side // finest) * finest // stride


SMALL_HEADS = dict(in_channels=16, feat_channels=16)


def mask_rcnn():
    cfg = Config.fromstring(
        "_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']", '.py'
    ).model
    cfg.rpn_head.update(SMALL_HEADS)
    heads = cfg.roi_head
    heads.bbox_roi_extractor.out_channels = 16
    heads.mask_roi_extractor.out_channels = 16
    heads.bbox_head.update(in_channels=16, fc_out_channels=16, num_classes=3)
    heads.mask_head.update(
        num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3
    )
    cfg.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    cfg.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    return cfg


def retinanet():
    cfg = Config.fromstring(
        "_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']", '.py'
    ).model
    cfg.bbox_head.update(SMALL_HEADS, num_classes=3, stacked_convs=1)
    return cfg


def semantic_fpn():
    cfg = Config.fromstring(
        "_base_ = ['mmseg::_base_/models/fpn_r50.py']", '.py'
    ).model
    cfg.data_preprocessor.size = (96, 128)
    cfg.decode_head.update(in_channels=[16] * 4, channels=16, num_classes=4)
    cfg.pretrained = None
    return cfg


def detection_samples(with_mask):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    sample = DetDataSample(
        metainfo=dict(
            img_shape=(96, 128),
            batch_input_shape=(96, 128),
            pad_shape=(96, 128),
            scale_factor=(1.0, 1.0),
            ori_shape=(96, 128),
        )
    )
    box = torch.tensor([[10.0, 10.0, 70.0, 80.0]])
    sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([1]))
    if with_mask:
        mask = torch.zeros(1, 96, 128, dtype=torch.uint8)
        mask[:, 10:80, 10:70] = 1
        sample.gt_instances.masks = BitmapMasks(mask.numpy(), 96, 128)
    return [sample, deepcopy(sample)]


def segmentation_samples():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    return [
        SegDataSample(
            metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128)),
            gt_sem_seg=PixelData(data=torch.randint(0, 4, (1, 96, 128))),
        )
        for _ in range(2)
    ]


MODEL_CASES = {
    'mask_rcnn': ('mmdet', mask_rcnn, MASK_RCNN),
    'retinanet': ('mmdet', retinanet, RETINANET),
    'semantic_fpn': ('mmseg', semantic_fpn, SEGMENTOR),
}


@pytest.mark.parametrize('case', MODEL_CASES)
def test_trains_and_predicts_under_stock_heads(case):
    """The whole config stays, the backbone's name alone changes."""
    library, make, strides = MODEL_CASES[case]
    pytest.importorskip(library)
    base = make()
    base.neck = None
    base.backbone = pyramid(BACKBONES['mambaout_femto'], strides)
    init_default_scope(library)
    for name in ('mobilemamba', 'mambaout_femto'):
        cfg = deepcopy(base)
        if name == 'mobilemamba':
            cfg.backbone.backbone = TINY
        with DefaultScope.overwrite_default_scope(library):
            model = revert_sync_batchnorm(MODELS.build(cfg))
            if library == 'mmdet':
                samples = detection_samples(case == 'mask_rcnn')
            else:
                samples = segmentation_samples()
            inputs = torch.rand(2, 3, 96, 128)
            losses = model.loss(inputs, samples)
            parsed, _ = model.parse_losses(losses)
            assert torch.isfinite(parsed), name
            parsed.backward()
            untouched = [
                key
                for key, p in model.named_parameters()
                if p.requires_grad and p.grad is None
            ]
            assert not [k for k in untouched if 'backbone.' in k], name
            model.eval()
            with torch.no_grad():
                assert model.predict(inputs[:1], samples[:1])


def test_published_names_of_the_neck_stay():
    """Strides 16 to 64 to 4 to 64, as in the published Mask R-CNN."""
    neck = MODELS.build(pyramid(TINY, MASK_RCNN)).neck
    published = DeconvFPN((32, 40, 48), 16, num_finer=2)
    assert {k: v.shape for k, v in neck.state_dict().items()} == {
        k: v.shape for k, v in published.state_dict().items()
    }


def test_other_necks_get_their_channels():
    pytest.importorskip('mmdet')
    model = MODELS.build(
        dict(
            type='mmmobilemamba.PyramidBackbone',
            backbone=TINY,
            neck=dict(type='mmdet.FPN', out_channels=16, num_outs=4),
        )
    )
    assert [m.shape[1] for m in model(torch.rand(2, 3, 128, 128))] == [16] * 4


def test_weights_are_initialised_by_each_part(tmp_path):
    cfg = pyramid(BACKBONES['resnet18'], SEGMENTOR)
    source = MODELS.build(cfg)
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'x.pth')
    cfg['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'x.pth')
    )
    model = MODELS.build(cfg)
    model.init_weights()
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name]), name
    assert not model.neck.lateral_convs[0].conv.bias.any()


def test_layer_depth_and_deploy():
    model = MODELS.build(pyramid(BACKBONES['efficientvit_m2'], MASK_RCNN))
    name = 'timm_model.patch_embed_conv1.conv.weight'
    assert model.get_layer_depth(f'backbone.backbone.{name}', 'backbone.') == (
        model.backbone.get_layer_depth(name)
    )
    depth, layers = model.get_layer_depth('backbone.neck.x', 'backbone.')
    assert depth == layers - 1
    model.switch_to_deploy()


def test_bad_arguments():
    resnet = BACKBONES['resnet18']
    cfg = pyramid(resnet, SEGMENTOR)
    cfg['neck']['in_channels'] = [1]
    with pytest.raises(ValueError, match='in_channels'):
        MODELS.build(cfg)
    pytest.importorskip('mmdet')
    cfg = pyramid(dict(type='mmdet.ResNet', depth=18), SEGMENTOR)
    with pytest.raises(TypeError, match='mmdet.ResNet.*out_channels'):
        MODELS.build(cfg)
    # A plain transformer has one stride.
    vit = dict(resnet, model_name='vit_tiny_patch16_224', img_size=64)
    with pytest.raises(ValueError, match='in_strides'):
        MODELS.build(pyramid(vit, SEGMENTOR))

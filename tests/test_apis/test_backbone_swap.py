"""Another backbone in a config: fitted neck, still norms, files that fit."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.apis.backbone_swap import (
    parse_backbone,
    parse_backbones,
    swap_backbone,
)
from mmmobilemamba.apis.inference import build_model

for library in ('mmdet', 'mmseg', 'timm'):
    pytest.importorskip(library)

CONFIGS = {
    'pyramid': 'configs/own_data/retinanet_mobilemamba-t2_voc-192px.py',
    'deconv': 'configs/det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py',
    'fpn': 'configs/seg/sem_fpn/'
    'fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py',
}


@pytest.fixture
def config(repo):
    return lambda kind: Config.fromfile(repo / CONFIGS[kind])


@pytest.mark.parametrize(
    'kind, strides, name, channels',
    [
        ('pyramid', [8, 16, 32, 64], 't2', [144, 272, 368]),
        ('pyramid', [8, 16, 32, 64], 'host:mobilenet_v2', [24, 32, 96, 320]),
        ('deconv', [4, 8, 16, 32, 64], 'efficientvit_m0', [64, 128, 192]),
    ],
)
def test_heads_see_the_same_strides(config, kind, strides, name, channels):
    cfg = config(kind)
    head = str(cfg.model.get('bbox_head') or cfg.model.roi_head)
    swap_backbone(cfg, parse_backbone(name))
    assert list(cfg.model.neck.in_channels) == channels
    model = build_model(cfg).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 128, 192))
    assert [192 // m.shape[3] for m in maps] == strides
    assert str(cfg.model.get('bbox_head') or cfg.model.roi_head) == head


def test_ordinary_neck_takes_a_backbone_of_its_strides(config):
    cfg = config('fpn')
    swap_backbone(cfg, parse_backbone('efficientvit_m0'))
    assert cfg.model.neck.type == 'FPN'
    assert list(cfg.model.neck.in_channels) == [64, 128, 192]
    with pytest.raises(ValueError, match='DeconvFPN with out_strides'):
        swap_backbone(config('fpn'), parse_backbone('host:resnet18'))


def test_finer_maps_than_an_ordinary_neck_wants_are_left_out():
    cfg = Config.fromstring(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'", '.py'
    )
    swap_backbone(cfg, parse_backbone('mobilenetv2_035'))
    assert cfg.model.backbone.out_indices == (1, 2, 3, 4)
    assert len(cfg.model.neck.in_channels) == 4
    assert cfg.model.neck.num_outs == 5


def test_norms_learn_without_weights_and_rest_with_them(config, tmp_path):
    cfg = config('deconv')
    assert cfg.model.backbone.norm_eval
    swap_backbone(cfg, parse_backbone('efficientvit_m0'))
    assert cfg.model.backbone.norm_eval is False

    with DefaultScope.overwrite_default_scope('mmdet'):
        network = MODELS.build(parse_backbone('efficientvit_m0').config)
    path = tmp_path / 'm0.pth'
    torch.save(dict(state_dict=network.state_dict()), path)
    choice = parse_backbone(f'efficientvit_m0={path}')
    assert choice.label == 'efficientvit_m0 (m0)'
    assert choice.slug == 'efficientvit_m0-m0'
    cfg = config('deconv')
    swap_backbone(cfg, choice)
    assert cfg.model.backbone.norm_eval is True
    assert cfg.model.backbone.init_cfg.checkpoint == str(path)


@pytest.mark.parametrize('name', ['efficientvit_m1', 'host:resnet18'])
def test_weights_of_another_network_are_refused(config, tmp_path, name):
    """The host's own would load them in silence."""
    path = tmp_path / 'other.pth'
    torch.save(dict(conv1=dict(), weight=torch.zeros(3)), path)
    with pytest.raises(ValueError, match=r'other\.pth'):
        swap_backbone(config('pyramid'), parse_backbone(f'{name}={path}'))


def test_weights_of_the_hosts_network_lose_their_classifier(config, tmp_path):
    from mmdet.models import ResNet

    tensors = ResNet(18).state_dict()
    path = tmp_path / 'resnet18.pth'
    torch.save({**tensors, 'fc.weight': torch.zeros(3, 512)}, path)
    choice = parse_backbone(f'host:resnet18={path}')
    swap_backbone(config('pyramid'), choice)


@pytest.mark.parametrize(
    'name, named',
    [
        ('t9', 'no network of timm'),
        ('mobilemamba_t9', 't9'),
        ('host:resnet19', 'host:resnet18'),
        ('mambaout_femt', 'mambaout_femto'),
    ],
)
def test_unknown_names(name, named):
    with pytest.raises(ValueError, match=named):
        parse_backbone(name)


def test_no_name_twice_and_no_missing_file(tmp_path):
    with pytest.raises(ValueError, match='more than once'):
        parse_backbones(['t2', 's6', 't2'])
    with pytest.raises(FileNotFoundError, match='none'):
        parse_backbone(f't2={tmp_path / "none.pth"}')


def test_a_model_without_a_neck():
    cfg = Config.fromstring(
        "_base_ = 'mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-"
        "512x1024.py'",
        '.py',
    )
    with pytest.raises(ValueError, match='needs a neck'):
        swap_backbone(cfg, parse_backbone('t2'))

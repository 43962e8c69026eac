"""Another backbone in a config: fitted neck, still norms, files that fit."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.analysis.compare import Compared, make_table, swap_backbone
from mmmobilemamba.analysis.networks import backbone_config, parse_network
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.apis.training import FinishedTraining

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm'):
    pytest.importorskip(library)

CONFIGS = {
    'pyramid': 'own_data/retinanet_mobilemamba-t2_voc-192px.py',
    'deconv': 'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py',
    'fpn': 'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py',
    'cls': 'own_data/mobilemamba-t2_image-folders-64px.py',
}


@pytest.fixture
def swapped(repo):
    """Give a function that puts a backbone into one of the configs."""

    def call(kind, name):
        cfg = Config.fromfile(repo / 'configs' / CONFIGS[kind])
        swap_backbone(cfg, parse_network(name))
        return cfg

    return call


@pytest.mark.parametrize(
    'kind, strides, name, channels',
    [
        ('pyramid', [8, 16, 32, 64], 't2', [144, 272, 368]),
        ('pyramid', [8, 16, 32, 64], 'host:mobilenet_v2', [24, 32, 96, 320]),
        ('deconv', [4, 8, 16, 32, 64], 'efficientvit_m0', [64, 128, 192]),
    ],
)
def test_heads_see_the_same_strides(swapped, kind, strides, name, channels):
    cfg = swapped(kind, name)
    assert list(cfg.model.neck.in_channels) == channels
    model = build_model(cfg).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 128, 192))
    assert [192 // m.shape[3] for m in maps] == strides


def test_ordinary_neck_takes_a_backbone_of_its_strides(swapped):
    cfg = swapped('fpn', 'efficientvit_m0')
    assert cfg.model.neck.type == 'FPN'
    assert list(cfg.model.neck.in_channels) == [64, 128, 192]
    with pytest.raises(ValueError, match='DeconvFPN with out_strides'):
        swapped('fpn', 'host:resnet18')


@pytest.mark.parametrize('name', ['s6', 'host:resnet18'])
def test_classifier_takes_the_channels_of_the_last_map(swapped, name):
    cfg = swapped('cls', name)
    model = build_model(cfg).eval()
    assert cfg.model.head.type == 'mmmobilemamba.BNLinearClsHead'
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_norms_learn_without_weights_and_rest_with_them(swapped, tmp_path):
    backbone = swapped('deconv', 'efficientvit_m0').model.backbone
    assert backbone.norm_eval is False
    with DefaultScope.overwrite_default_scope('mmdet'):
        config = backbone_config(parse_network('efficientvit_m0'))
        network = MODELS.build(config)
    path = tmp_path / 'm0.pth'
    torch.save(dict(state_dict=network.state_dict()), path)
    backbone = swapped('deconv', f'efficientvit_m0={path}').model.backbone
    assert backbone.norm_eval is True
    assert backbone.init_cfg.checkpoint == str(path)


def test_weights_of_another_network_are_refused(swapped, tmp_path):
    """The host's own would load them in silence."""
    from mmdet.models import ResNet

    path = tmp_path / 'resnet18.pth'
    tensors = ResNet(18).state_dict()
    # Its classifier may be there.
    torch.save({**tensors, 'fc.weight': torch.zeros(3, 512)}, path)
    swapped('pyramid', f'host:resnet18={path}')
    torch.save({**tensors, 'conv1.weight': torch.zeros(3)}, path)
    for name in ('efficientvit_m1', 'host:resnet18'):
        with pytest.raises(ValueError, match=r'resnet18\.pth'):
            swapped('pyramid', f'{name}={path}')


def test_table(swapped, tmp_path):
    cfg = swapped('cls', 't2')
    cfg.work_dir, cfg.train_cfg = str(tmp_path), dict(max_epochs=2)
    log = tmp_path / '20260101_100000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    result = Compared('T2', cfg, (64, 64))
    for seed, value in enumerate((50.0, 52.0)):
        log.write_text(f'{{"accuracy/top1": {value}, "step": 2}}\n')
        done = FinishedTraining(tmp_path / 'epoch_2.pth', 3.0)
        result.add(seed, cfg, done)
    header, _, row = make_table([result]).splitlines()
    assert '| accuracy/top1 |' in header
    assert row.startswith('| T2 | 51 ± 1.4 | 50, 52 | 8.4')
    # Of its last step nothing is known.
    cfg.train_cfg.max_epochs = 3
    with pytest.raises(ValueError, match='accuracy/top1'):
        result.add(2, cfg, done)

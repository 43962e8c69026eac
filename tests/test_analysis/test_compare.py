"""Another backbone in a config: fitted neck, still norms, files that fit."""

import pytest
import torch
from mmengine.config import Config

from mmmobilemamba.analysis.compare import Compared, make_table, swap_backbone
from mmmobilemamba.analysis.complexity import Complexity
from mmmobilemamba.analysis.networks import build_network, parse_network
from mmmobilemamba.analysis.run_logs import RunLog
from mmmobilemamba.apis.inference import build_model

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
    'kind, strides, name',
    [
        ('pyramid', [8, 16, 32, 64], 't2'),
        ('pyramid', [8, 16, 32, 64], 'host:mobilenet_v2'),
        ('deconv', [4, 8, 16, 32, 64], 'efficientvit_m0'),
    ],
)
def test_heads_see_the_same_strides(swapped, kind, strides, name):
    model = build_model(swapped(kind, name)).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 128, 192))
    assert [192 // m.shape[3] for m in maps] == strides


def test_ordinary_neck_takes_a_backbone_of_its_strides(swapped):
    neck = swapped('fpn', 'efficientvit_m0').model.neck
    assert (neck.type, neck.in_channels) == ('FPN', [64, 128, 192])
    with pytest.raises(ValueError, match='DeconvFPN with out_strides'):
        swapped('fpn', 'host:resnet18')


@pytest.mark.parametrize('name', ['s6', 'host:resnet18'])
def test_classifier_takes_the_channels_of_the_last_map(swapped, name):
    model = build_model(swapped('cls', name)).eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_norms_learn_without_weights_and_rest_with_them(swapped, tmp_path):
    name = 'efficientvit_m0'
    assert swapped('deconv', name).model.backbone.norm_eval is False
    network, _ = build_network(parse_network(name), features=True)
    torch.save(network.state_dict(), tmp_path / 'm0.pth')
    backbone = swapped('deconv', f'{name}={tmp_path}/m0.pth').model.backbone
    assert backbone.norm_eval is True
    assert backbone.init_cfg.checkpoint == f'{tmp_path}/m0.pth'


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


def test_table(swapped):
    cfg = swapped('cls', 't2')
    cfg.train_cfg = dict(max_epochs=2)
    cost = Complexity(8_400_000, 8_400_000, {}, None)
    result = Compared('T2', cfg, cost, seconds=[2.0, 4.0])
    for value in (50.0, 52.0):
        result.runs.append(RunLog('run', val={2: dict(top1=value)}))
    header, _, row = make_table([result], 'top1').splitlines()
    assert '| top1 |' in header
    assert row.startswith('| T2 | 51 ± 1.4 | 50, 52 | 8.4')
    # Of its last step nothing is known.
    cfg.train_cfg.max_epochs = 3
    with pytest.raises(ValueError, match='top1'):
        make_table([result], 'top1')

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

PYRAMID = 'own_data/retinanet_mobilemamba-t2_voc-192px.py'
DECONV = 'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'
FPN = 'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py'
CLASSIFIER = 'own_data/mobilemamba-t2_image-folders-64px.py'


@pytest.fixture
def swapped(repo):
    """Give a function that puts a backbone into one of the configs."""

    def call(config, name, **backbone):
        cfg = Config.fromfile(repo / 'configs' / config)
        cfg.model.backbone.update(backbone)
        swap_backbone(cfg, parse_network(name))
        return cfg

    return call


@pytest.mark.parametrize(
    'config, strides, name',
    [
        (PYRAMID, [8, 16, 32, 64], 't2'),
        (PYRAMID, [8, 16, 32, 64], 'host:mobilenet_v2'),
        (DECONV, [4, 8, 16, 32, 64], 'efficientvit_m0'),
    ],
)
def test_heads_see_the_same_strides(swapped, config, strides, name):
    model = build_model(swapped(config, name)).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 128, 192))
    assert [192 // m.shape[3] for m in maps] == strides


def test_ordinary_neck_takes_a_backbone_of_its_strides(swapped):
    neck = swapped(FPN, 'efficientvit_m0').model.neck
    assert (neck.type, neck.in_channels) == ('FPN', [64, 128, 192])
    with pytest.raises(ValueError, match='DeconvFPN with out_strides'):
        swapped(FPN, 'host:resnet18')


def test_classifier_takes_the_channels_of_the_last_map(swapped):
    for name in ('host:resnet18', 'efficientvit_m0'):
        model = build_model(swapped(CLASSIFIER, name, in_channels=4)).eval()
        assert model(torch.zeros(2, 4, 64, 64)).shape == (2, 10)


def test_weights_have_to_fit_and_let_norms_rest(swapped, tmp_path):
    """The host's own would load others in silence."""
    name, path = 'host:resnet18', f'{tmp_path}/resnet18.pth'
    assert swapped(DECONV, name).model.backbone.norm_eval is False
    network, _ = build_network(parse_network(name), features=True)
    tensors, wrong = network.state_dict(), torch.zeros(3, 512)
    # Its classifier may be there.
    torch.save({**tensors, 'fc.weight': wrong}, path)
    assert swapped(DECONV, f'{name}={path}').model.backbone.norm_eval is True
    with pytest.raises(ValueError, match='resnet18.pth'):
        swapped(DECONV, f'efficientvit_m1={path}')
    torch.save({**tensors, 'conv1.weight': wrong}, path)
    with pytest.raises(ValueError, match='resnet18.pth'):
        swapped(DECONV, f'{name}={path}')


def test_table():
    cfg = Config(dict(train_cfg=dict(max_epochs=2)))
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

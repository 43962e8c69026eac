"""Names of networks, and what is built of them."""

import pytest
import torch
from mmcv.transforms import Resize
from mmengine.config import Config

from mmmobilemamba.analysis.networks import build_network, parse_network
from mmmobilemamba.apis.input_size import usual_size

pytest.importorskip('timm')
pytest.importorskip('mmdet')


@pytest.mark.parametrize(
    'text, kind, network, size',
    [
        ('t2', 'mobilemamba', 't2', None),
        ('timm:shvit_s4@192x320', 'timm', 'shvit_s4', (192, 320)),
        ('mambaout:femto', 'timm', 'mambaout_femto', None),
        ('a@b/c_d-e.py@800x1344', 'config', 'a@b/c_d-e.py', (800, 1344)),
    ],
)
def test_names(text, kind, network, size):
    spec = parse_network(f'{text}={__file__},deploy=no,dtype=float16')
    assert (spec.kind, spec.network, spec.size) == (kind, network, size)
    assert spec.checkpoint == __file__
    assert spec.options == dict(deploy='no', dtype='float16')


@pytest.mark.parametrize(
    'text, said',
    [
        ('t2@0', 'names no network'),
        ('mobilemamba:b3', 'b4'),
        ('host:resnet19', 'resnet18'),
        ('efficientvit_m55', 'efficientvit_m5'),
        ('t2=gone.pth', 'gone.pth'),
    ],
)
def test_what_a_name_has_wrong_is_said(text, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        parse_network(text)


@pytest.mark.parametrize(
    'text', ['t2@64', 'test_efficientnet', 'mambaout:femto', 'host:resnet18']
)
def test_whole_networks_classify_and_backbones_give_maps(text):
    module, _ = build_network(parse_network(text))
    backbone, _ = build_network(parse_network(text), features=True)
    with torch.no_grad():
        assert module(torch.rand(2, 3, 64, 64)).shape == (2, 1000)
        assert len(backbone(torch.rand(1, 3, 64, 64))) > 2


def test_weights_of_a_backbone(tmp_path):
    module, size = build_network(parse_network('t2'), features=True)
    assert size == (192, 192)
    state = {k: torch.ones_like(v) for k, v in module.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
    spec = parse_network(f't2={tmp_path}/trained.pth')
    module, _ = build_network(spec, features=True)
    assert all((v == 1).all() for v in module.state_dict().values())
    # Its classifier would be random.
    with pytest.raises(ValueError, match='trained head'):
        build_network(spec)


@pytest.mark.parametrize(
    'step, size',
    [
        (dict(type='CenterCrop', crop_size=64), (64, 64)),
        # As configs in the style of Python classes name it.
        (dict(type=Resize, scale=(96, 32)), (32, 96)),
        (dict(type='Resize', scale=(96, 32), keep_ratio=True), (800, 1280)),
        (dict(type='ResizeEdge', scale=32), (800, 1280)),
    ],
)
def test_size_of_a_pipeline(step, size):
    loader = dict(dataset=dict(dataset=dict(pipeline=[step])))
    cfg = Config(dict(default_scope='mmdet', test_dataloader=loader))
    assert usual_size(cfg) == size

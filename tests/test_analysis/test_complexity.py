"""Counts of multiply-accumulates and parameters."""

import pytest
import torch
from torch import nn

from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.analysis.op_counts import haar_macs, scan_macs
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.models import MobileMamba
from mmmobilemamba.ops import BACKENDS, ENV_NAME
from mmmobilemamba.ops.backend import find_extension

TINY = dict(channels=(32, 40, 48), depths=(1, 1, 1))

# Config, height and width, MACs as published, tolerance.
PUBLISHED = [
    ('cls/mobilemamba/mobilemamba-t2_*-192px.py', 192, 192, 255e6, 0.01),
    ('cls/mobilemamba/mobilemamba-t4_*-192px.py', 192, 192, 413e6, 0.01),
    ('cls/mobilemamba/mobilemamba-s6_*-224px.py', 224, 224, 652e6, 0.01),
    ('cls/mobilemamba/mobilemamba-b1_*-256px.py', 256, 256, 1080e6, 0.01),
    ('cls/mobilemamba/mobilemamba-b2_*-384px.py', 384, 384, 2427e6, 0.01),
    ('cls/mobilemamba/mobilemamba-b4_*-512px.py', 512, 512, 4313e6, 0.01),
    ('seg/sem_fpn/fpn_*.py', 512, 512, 5.6e9, 0.03),
    ('seg/deeplabv3/deeplabv3_*.py', 512, 512, 4.7e9, 0.03),
    ('seg/pspnet/pspnet_*.py', 512, 512, 4.5e9, 0.03),
    # The size that the first pictures of COCO have on average; at 800x1280
    # the counts are 190.7 and 168.7 G.
    ('det/mask_rcnn/mask-rcnn_*-b1_*.py', 800, 1152, 178e9, 0.03),
    ('det/retinanet/retinanet_*-b1_*.py', 800, 1152, 151e9, 0.03),
]


def config_model(repo, pattern):
    """Build the model of the first config that fits a pattern."""
    scope = dict(cls='mmpretrain', seg='mmseg', det='mmdet')[pattern[:3]]
    pytest.importorskip(scope)
    path = sorted((repo / 'configs').glob(pattern))[0]
    return build_model(load_config(path))


@pytest.mark.parametrize(
    'pattern, height, width, macs, tolerance',
    PUBLISHED,
    ids=[row[0].partition('/')[2].partition('_')[0] for row in PUBLISHED],
)
def test_published_macs(repo, pattern, height, width, macs, tolerance):
    model = config_model(repo, pattern)
    counted = count_complexity(model, (height, width))
    assert counted.macs == pytest.approx(macs, rel=tolerance)


@pytest.mark.parametrize(
    'config, height, width, macs, params',
    [
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 800, 1280, 260e9, 44.4e6),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', 800, 1280, 239e9, 38e6),
    ],
)
def test_detectors_that_others_counted(config, height, width, macs, params):
    # As many papers give them.
    mmdet = pytest.importorskip('mmdet')
    path = f'{mmdet.__path__[0]}/.mim/configs/{config}'
    counted = count_complexity(build_model(load_config(path)), (height, width))
    assert counted.macs == pytest.approx(macs, rel=0.003)
    assert counted.params == pytest.approx(params, rel=0.003)


def test_parameters_that_inference_does_not_read(repo):
    model = config_model(repo, 'seg/deeplabv3/deeplabv3_*.py')
    counted = count_complexity(model, (64, 64))
    auxiliary = sum(p.numel() for p in model.auxiliary_head.parameters())
    assert counted.unused_params == auxiliary
    assert counted.params - auxiliary == pytest.approx(23.0e6, rel=0.01)
    model = config_model(repo, 'det/ssd/ssdlite_*-320px.py')
    counted = count_complexity(model, (320, 320))
    unread = sum(p.numel() for p in model.backbone.stages[2].parameters())
    assert counted.unused_params == unread


def test_every_backend_counts_alike(monkeypatch):
    if find_extension().module is None:
        pytest.skip('the scan extension is not built')
    found = set()
    for backend in BACKENDS:
        monkeypatch.setenv(ENV_NAME, backend)
        model = MobileMamba(dict(TINY, scan_directions=4, d_state=2))
        assert model.stages[0].blocks[0].mixer.global_path.ss2d.backend == (
            backend
        )
        for device in ('meta', 'cpu'):
            counted = count_complexity(model, (96, 70), device=device)
            found.add((counted.macs, counted.by_operator['scan']))
    assert len(found) == 1


def test_deployed_network_lacks_only_its_norms():
    model = MobileMamba('s6')
    plain = count_complexity(model, (224, 224))
    model.switch_to_deploy()
    fused = count_complexity(model, (224, 224))
    norms = 'normalisation'
    assert fused.macs - fused.by_operator[norms] == (
        plain.macs - plain.by_operator[norms]
    )
    for kind in ('scan', 'wavelet', 'convolution'):
        assert fused.by_operator[kind] == plain.by_operator[kind]
    # LayerNorm stays.
    assert 0 < fused.by_operator[norms] < plain.by_operator[norms]


def test_scan_and_wavelet_by_hand():
    model = MobileMamba(TINY)
    counted = count_complexity(model, (64, 80))
    scans = wavelets = 0
    for stage, (height, width) in zip(
        model.stages, [(4, 5), (2, 3), (1, 2)], strict=True
    ):
        ss2d = stage.blocks[0].mixer.global_path.ss2d
        scans += scan_macs(height * width, ss2d.inner, 1, 2, ss2d.rank)
        wavelets += haar_macs(1, ss2d.inner // 2, height, width)
    assert counted.by_operator['scan'] == scans
    assert counted.by_operator['wavelet'] == wavelets
    assert scan_macs(10, 4, 1, 2) == 2 * 10 * 4 * (9 + 1)
    assert haar_macs(1, 3, 3, 4) == 8 * 3 * 4 * 4  # padded to 4 x 4
    assert haar_macs(1, 3, 8, 8, levels=2) == 8 * 3 * (64 + 16)


class Mixed(nn.Module):
    """One of each operator that has a rule."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.unread = nn.Linear(5, 7)

    def forward(self, x):
        x = self.up(self.bn(self.conv(x)))
        x = nn.functional.interpolate(x, size=(2, 3), mode='bilinear')
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_operators_by_hand(device):
    model = Mixed().train()
    counted = count_complexity(model, (2, 3, 10, 6), device=device)
    conv = 2 * 8 * 3 * 9 * 60
    up = 2 * 60 * 8 * 4 * 4
    projections = 2 * 6 * 4 * 16
    scores = 2 * 2 * 6 * 6 * 4
    assert counted.modules['conv'][0] == conv
    assert counted.modules['bn'][0] == 2 * 8 * 60
    assert counted.modules['up'][0] == up
    assert counted.by_operator['interpolation'] == 4 * 2 * 4 * 6
    assert counted.macs == (
        conv + 2 * 8 * 60 + up + 4 * 2 * 4 * 6 + projections + scores
    )
    assert counted.unused_params == 5 * 7 + 7


def test_model_stays_as_it_was():
    model = MobileMamba(TINY, frozen_stages=1).train()
    modes = [module.training for module in model.modules()]
    state = {
        name: tensor.clone() for name, tensor in model.state_dict().items()
    }
    count_complexity(model, (64, 64))
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == 'cpu'
        assert torch.equal(tensor, state[name])
    assert not any(module._forward_hooks for module in model.modules())


def test_table_sums_up():
    counted = count_complexity(MobileMamba(TINY), (64, 64))
    stages = [counted.modules[f'stages.{i}'][0] for i in range(3)]
    assert counted.modules['stages'][0] == sum(stages)
    assert counted.macs == counted.modules['stem'][0] + sum(stages)
    lines = counted.table(1).splitlines()
    assert lines[1].split()[:3] == ['(whole)', f'{counted.macs:,}', '100.0%']
    assert [line.split()[0] for line in lines[2:]] == ['stem', 'stages']
    assert len(counted.table(2).splitlines()) > len(lines)


@pytest.mark.parametrize('shape', [(3,), (0, 64), ('a', 64), (1, 2, 3, 4, 5)])
def test_shape_that_is_none(shape):
    with pytest.raises(ValueError, match='inputs must be'):
        count_complexity(nn.Identity(), shape)

"""Effective receptive fields against networks whose fields are known."""

import numpy as np
import pytest
import torch
from torch import nn

from mmmobilemamba.analysis.feature_networks import build_feature_network
from mmmobilemamba.analysis.receptive_field import (
    covered_areas,
    receptive_fields,
    square_shares,
    wake_branches,
)
from mmmobilemamba.models import MobileMamba


class Stages(nn.Module):
    """Two convolutions, the second of which halves the map."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 2, stride=2)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x):
        x = self.first(x)
        return x, self.second(x)


def test_field_of_convolutions():
    pictures = [torch.rand(1, 3, 10, 10) for _ in range(2)]
    fields = receptive_fields(Stages(), pictures, [0, -1])
    assert [stride for stride, _ in fields] == [1, 2]
    # The central 2x2 places of an even map see 4x4 pixels.
    field = fields[0][1]
    assert field.sum() == pytest.approx(1)
    assert np.argwhere(field > 0).min(0).tolist() == [3, 3]
    assert np.argwhere(field > 0).max(0).tolist() == [6, 6]
    # An odd map has one central place: 2x2 places, 4x4 pixels.
    assert (fields[1][1] > 0).sum() == 16
    assert fields[1][1][3:7, 3:7].sum() == pytest.approx(1)


def test_covered_areas():
    even = np.full((8, 8), 1 / 64)
    assert covered_areas(even, [0.25, 1]) == pytest.approx([0.25, 1])
    point = np.zeros((8, 8))
    point[3:5, 3:5] = 0.25
    assert covered_areas(point, [0.5, 0.99]) == pytest.approx([1 / 16, 1 / 16])
    sides, shares = square_shares(even)
    assert np.allclose(sides**2, shares)
    assert sides[-1] == shares[-1] == 1


def test_scan_sees_the_whole_picture():
    torch.manual_seed(0)
    model = MobileMamba(
        dict(channels=(32, 40, 48), depths=(1, 1, 1)), out_indices=(0,)
    ).eval()
    x = torch.randn(1, 3, 128, 128)
    # As initialised, the branches add nothing to the stem's own field.
    ((_, before),) = receptive_fields(model, [x], [0])
    wake_branches(model)
    ((_, after),) = receptive_fields(model, [x], [0])
    assert (before > 0).mean() < 0.3
    assert (after > 0).mean() > 0.4
    assert after[0].sum() > 0 and after[-1].sum() > 0


def test_unknown_stage():
    with pytest.raises(ValueError, match='Stage 2 is none of the 2'):
        receptive_fields(Stages(), [torch.rand(1, 3, 8, 8)], [2])


def test_no_gradient():
    model = Stages()
    nn.init.zeros_(model.first.weight)
    with pytest.raises(ValueError, match='No gradient'):
        receptive_fields(model, [torch.rand(1, 3, 8, 8)], [0])


def test_networks_by_name(tmp_path):
    ours = build_feature_network('mobilemamba:t2')
    assert (ours.name, ours.weights) == ('MobileMamba-T2', 'random weights')
    checkpoint = tmp_path / 'trained.pth'
    state = ours.module.state_dict()
    state['stem.0.conv.weight'].fill_(0.5)
    torch.save(dict(state_dict=state), checkpoint)
    trained = build_feature_network(f'mobilemamba:t2={checkpoint}')
    assert trained.weights == 'trained.pth'
    assert (trained.module.stem[0].conv.weight == 0.5).all()
    with pytest.raises(ValueError, match='is no network'):
        build_feature_network('b1')
    with pytest.raises(FileNotFoundError, match='gone.pth'):
        build_feature_network('mobilemamba:t2=gone.pth')


def test_network_of_timm():
    pytest.importorskip('timm')
    network = build_feature_network('timm:mobilenetv3_small_050')
    ((stride, _),) = receptive_fields(
        network.module, [torch.randn(1, 3, 64, 64)], [-1]
    )
    assert stride == 32

"""Effective receptive fields against networks whose fields are known."""

import numpy as np
import pytest
import torch
from torch import nn

from mmmobilemamba.analysis import receptive_field
from mmmobilemamba.models import MobileMamba


def test_field_of_convolutions():
    first, halving = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 2, 2)
    for parameter in (*first.parameters(), *halving.parameters()):
        nn.init.ones_(parameter)

    def stages(x):
        return first(x), halving(first(x))

    images = [torch.rand(1, 3, 10, 10) for _ in range(2)]
    fields = receptive_field.receptive_fields(stages, images, [0, -1])
    assert [stride for stride, _ in fields] == [1, 2]
    # The central 2x2 places of an even map see 4x4 pixels.
    field = fields[0][1]
    assert field.sum() == pytest.approx(1)
    assert np.argwhere(field > 0).min(0).tolist() == [3, 3]
    assert np.argwhere(field > 0).max(0).tolist() == [6, 6]
    # An odd map has one central place: 2x2 places, 4x4 pixels.
    assert (fields[1][1] > 0).sum() == 16
    assert fields[1][1][3:7, 3:7].sum() == pytest.approx(1)


def test_table_tells_areas():
    even, point = np.full((10, 10), 0.01), np.zeros((10, 10))
    point[4:6, 4:6] = 0.25
    fields = dict(even=[(8, even)], point=[(16, point)])
    even, point = receptive_field.field_table(fields).splitlines()[2:]
    assert even.startswith('| even | 8 |') and even.endswith('| 100.0% |')
    assert point == '| point | 16 | 4.0% | 4.0% | 4.0% | 4.0% |'


def test_scan_sees_the_whole_image():
    torch.manual_seed(0)
    model = MobileMamba(dict(channels=(32, 40, 48), depths=(1, 1, 1))).eval()
    x = torch.randn(1, 3, 128, 128)
    # As initialised, the branches add nothing to the stem's own field.
    ((_, before),) = receptive_field.receptive_fields(model, [x], [0])
    receptive_field.wake_branches(model)
    ((_, after),) = receptive_field.receptive_fields(model, [x], [0])
    assert (before > 0).mean() < 0.3
    assert (after > 0).mean() > 0.4
    assert after[0].sum() > 0 and after[-1].sum() > 0

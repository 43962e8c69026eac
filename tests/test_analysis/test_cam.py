"""Class activation maps of a network that can be worked out by hand."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmmobilemamba.analysis import cam
from mmmobilemamba.analysis.cam import compute_cam

pytest.importorskip('mmpretrain')


class Pooling(nn.Module):
    """The pixels are the features; a linear layer reads their means."""

    cfg = SimpleNamespace(
        test_pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    )
    dataset_meta = dict(classes=('blue not green', 'red'))

    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0, -1, 0], [0, 0, 2]])

    def data_preprocessor(self, data, training):
        return dict(inputs=torch.stack(data['inputs']).float())

    def forward(self, inputs, mode):
        return self.head(self.backbone(inputs).mean((2, 3)))


@pytest.fixture
def compute(monkeypatch, tmp_path):
    """Give compute_cam for an image, blue above, green below, a little red at
    the right."""
    monkeypatch.setattr(cam, 'host_of', lambda model: 'mmpretrain')
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[:4, :, 0] = 200  # OpenCV's order: blue, green, red
    pixels[4:, :, 1] = 100
    pixels[:, 9, 2] = 50
    path = str(tmp_path / 'image.png')
    cv2.imwrite(path, pixels)
    return lambda **options: compute_cam(Pooling().eval(), path, **options)


def test_gradcam_is_the_weighted_map(compute):
    image, target, layers = compute()
    assert target == 'blue not green'
    ((name, (_, found)),) = layers.items()
    assert name == 'backbone\n3 x 8 x 10'
    # Blue speaks for the class, green against it.
    expected = np.zeros((8, 10))
    expected[:4] = 1
    assert np.allclose(found, expected)
    assert np.allclose(image[0, 0], [0, 0, 200 / 255])  # RGB


@pytest.mark.parametrize(
    'wanted, method', [('red', 'gradcam'), ('1', 'layercam')]
)
def test_class_that_is_asked_for(compute, wanted, method):
    _, target, layers = compute(target=wanted, method=method)
    assert target == 'red'
    ((_, found),) = layers.values()
    assert (found[:, 9] == 1).all() and (found[:, :9] == 0).all()


@pytest.mark.parametrize(
    'options, named',
    [
        (dict(target='2'), 'Class 2'),
        (dict(target='green'), 'blue not green'),
        (dict(layers=['head']), 'No layer'),
        (dict(layers=['back']), 'backbone'),
    ],
)
def test_what_there_is_not(compute, options, named):
    with pytest.raises(ValueError, match=named):
        compute(**options)

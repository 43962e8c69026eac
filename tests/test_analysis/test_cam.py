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

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head(self.backbone(inputs).mean((2, 3)))


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(cam, 'host_of', lambda model: 'mmpretrain')
    return Pooling().eval()


@pytest.fixture
def image(tmp_path):
    """Blue above, green below, a little red at the right."""
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[:4, :, 0] = 200  # OpenCV's order: blue, green, red
    pixels[4:, :, 1] = 100
    pixels[:, 9, 2] = 50
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), pixels)
    return str(path)


def test_gradcam_is_the_weighted_map(network, image):
    views = compute_cam(network, image)
    assert views.target == 'blue not green'
    ((name, (shape, _, found)),) = views.layers.items()
    assert (name, shape) == ('backbone', (3, 8, 10))
    # Blue speaks for the class, green against it.
    expected = np.zeros((8, 10))
    expected[:4] = 1
    assert np.allclose(found, expected)
    assert np.allclose(views.image[0, 0], [0, 0, 200 / 255])  # RGB


@pytest.mark.parametrize(
    'target, method', [('red', 'gradcam'), ('1', 'layercam')]
)
def test_class_that_is_asked_for(network, image, target, method):
    views = compute_cam(network, image, target=target, method=method)
    assert views.target == 'red'
    assert (views.layers['backbone'][2][:, 9] == 1).all()
    assert (views.layers['backbone'][2][:, :9] == 0).all()


@pytest.mark.parametrize(
    'change, named',
    [
        (dict(target='2'), 'Class 2'),
        (dict(layers=['head']), 'No layer'),
    ],
)
def test_what_there_is_not(network, image, change, named):
    with pytest.raises(ValueError, match=named):
        compute_cam(network, image, **change)

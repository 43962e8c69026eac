"""Class activation maps of a network that can be worked out by hand."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmmobilemamba.analysis import cam

pytest.importorskip('mmpretrain')


class Pooling(nn.Module):
    """The pixels are the features; a linear layer reads their means."""

    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    loader = dict(dataset=dict(pipeline=steps))
    cfg = Config(dict(default_scope='mmpretrain', test_dataloader=loader))
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
    """Give compute_cam for an image: blue above green, red at the right."""
    monkeypatch.setattr(cam, 'host_of', lambda model: 'mmpretrain')
    pixels = np.zeros((8, 10, 3), np.uint8)
    pixels[:4, :, 0] = 200  # OpenCV's order: blue, green, red
    pixels[4:, :, 1] = 100
    pixels[:, 9, 2] = 50
    path = str(tmp_path / 'image.png')
    cv2.imwrite(path, pixels)
    return lambda **options: cam.compute_cam(Pooling(), path, **options)


# Blue speaks for its class, green against it.
@pytest.mark.parametrize(
    'wanted, method, name, where',
    [
        (None, None, 'blue not green', np.s_[:4]),
        ('red', 'gradcam', 'red', np.s_[:, 9:]),
        ('1', 'layercam', 'red', np.s_[:, 9:]),
    ],
)
def test_map_of_a_class(compute, wanted, method, name, where):
    image, target, layers = compute(target=wanted, method=method)
    assert np.allclose(image[0, 0], [0, 0, 200 / 255])  # RGB
    assert (target, *layers) == (name, 'backbone\n3 x 8 x 10')
    expected = np.zeros((8, 10))
    expected[where] = 1
    ((_, found),) = layers.values()
    assert np.allclose(found, expected)


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

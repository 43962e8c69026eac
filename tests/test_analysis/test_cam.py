"""Class activation maps of a network that can be worked out by hand."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmmobilemamba.analysis.cam import default_layers, look

pytest.importorskip('mmpretrain')


class Pooling(nn.Module):
    """The pixels are the features; a linear layer reads their means."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0, -1, 0], [0, 0, 2]])
        self.cfg = SimpleNamespace(
            default_scope='mmpretrain',
            test_pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='PackInputs'),
            ],
        )
        self.dataset_meta = dict(classes=('blue not green', 'red'))

    def data_preprocessor(self, data, training):
        return dict(inputs=torch.stack(data['inputs']).float())

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head(self.backbone(inputs).mean((2, 3)))


@pytest.fixture
def picture(tmp_path):
    """Blue above, green below, a little red at the right."""
    image = np.zeros((8, 10, 3), np.uint8)
    image[:4, :, 0] = 200  # OpenCV's order: blue, green, red
    image[4:, :, 1] = 100
    image[:, 9, 2] = 50
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), image)
    return str(path)


def test_gradcam_is_the_weighted_map(picture):
    views = look(Pooling().eval(), picture)
    assert views.method == 'gradcam'
    assert views.target.startswith('blue not green')
    assert views.names == ['backbone'] and views.shapes == [(3, 8, 10)]
    # Blue speaks for the class, green against it.
    expected = np.zeros((8, 10))
    expected[:4] = 1
    assert np.allclose(views.cam[0], expected)
    assert views.image[0, 0].tolist() == [0, 0, 200]  # RGB


def test_class_that_is_asked_for(picture):
    for method in ('gradcam', 'layercam'):
        views = look(Pooling().eval(), picture, target=1, method=method)
        assert views.target.startswith('red')
        assert (views.cam[0][:, 9] == 1).all()
        assert (views.cam[0][:, :9] == 0).all()


def test_arguments(picture):
    model = Pooling().eval()
    with pytest.raises(ValueError, match='target must be 0 to 1'):
        look(model, picture, target=2)
    with pytest.raises(ValueError, match='method must be one of'):
        look(model, picture, method='cam')
    with pytest.raises(
        ValueError, match="no module 'backbones', but backbone"
    ):
        look(model, picture, layers=['backbones'])
    with pytest.raises(ValueError, match='None of the layers head'):
        look(model, picture, layers=['head'])


def test_layers_of_our_backbone():
    from mmmobilemamba.models import MobileMamba

    model = nn.Module()
    model.backbone = MobileMamba(
        dict(channels=(32, 40, 48), depths=(1, 3, 1)), out_indices=(0, 1)
    )
    assert default_layers(model) == [
        'backbone.stages.0.blocks.0',
        'backbone.stages.1.blocks.2',
    ]
    model.backbone = nn.Identity()
    assert default_layers(model) == ['backbone']
    with pytest.raises(ValueError, match='has no backbone'):
        default_layers(nn.Linear(2, 2))

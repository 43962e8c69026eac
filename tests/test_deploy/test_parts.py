"""What is written to be exported computes what it stands for."""

import numpy as np
import onnxruntime
import pytest
import torch
from mmcv.ops import batched_nms
from mmengine.config import ConfigDict
from torch import nn

from mmmobilemamba.deploy.detectors import suppress
from mmmobilemamba.deploy.graph import make_graph
from mmmobilemamba.deploy.networks import MatrixPool
from mmmobilemamba.models.layers.mixer import GlobalPath


def session_of(module, image, names, **options):
    model = make_graph(module.eval(), image, names, {}, **options)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )


CFG = ConfigDict(
    nms=dict(type='nms', iou_threshold=0.5), score_thr=0.1, max_per_img=30
)


class Suppress(nn.Module):
    """Takes boxes, score and label as columns."""

    def forward(self, x):
        boxes, scores, labels = x.split([4, 1, 1], dim=1)
        return suppress(boxes, scores[:, 0], labels[:, 0].long(), CFG)


@pytest.mark.parametrize('count', [200, 5])
def test_suppression_is_that_of_mmcv(count):
    """Of 200 boxes so many score enough."""
    torch.manual_seed(count)
    corner = torch.rand(200, 2) * 50
    boxes = torch.cat((corner, corner + torch.rand(200, 2) * 40), -1)
    scores, labels = torch.rand(200), torch.randint(3, (200,))
    scores[count:] = 0.05
    x = torch.cat((boxes, scores[:, None], labels[:, None]), 1)
    names = ['boxes', 'scores', 'labels']
    session = session_of(Suppress(), x, names)
    got = session.run(names, {'image': x.numpy()})
    there = scores > 0.1
    found = boxes[there], scores[there], labels[there]
    dets, keep = batched_nms(*found, CFG.nms)
    np.testing.assert_allclose(got[0], dets[:30, :4], rtol=1e-5)
    np.testing.assert_allclose(got[1], dets[:30, 4], rtol=1e-5)
    assert got[2].tolist() == found[2][keep][:30].tolist()
    # With no box at all, one of no class.
    x[:, 4] = 0.05
    assert session.run(['labels'], {'image': x.numpy()})[0].tolist() == [-1]


@pytest.mark.parametrize('directions', [1, 2, 4])
def test_graph_of_free_size(directions):
    """One graph holds for a single cell and for maps that are larger."""
    torch.manual_seed(0)
    path = GlobalPath(16, 3, 1, d_state=1, scan_directions=directions)
    for parameter in path.parameters():
        nn.init.normal_(parameter, std=0.3)
    path.eval().requires_grad_(False)
    session = session_of(path, torch.randn(1, 16, 4, 5), ['y'], free=(2, 3))
    for size in ((1, 1), (3, 2), (9, 8), (23, 29)):
        x = torch.randn(1, 16, *size)
        (got,) = session.run(None, {'image': x.numpy()})
        np.testing.assert_allclose(got, path(x), rtol=1e-4, atol=1e-5)


def test_softplus():
    x = torch.tensor([-200.0, -20.0, -1.0, 0.0, 3.0, 29.9, 30.1, 90.0, 1e9])
    session = session_of(nn.Softplus(), x, ['y'])
    wanted = nn.functional.softplus(x)
    (got,) = session.run(None, {'image': x.numpy()})
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('bins', [1, 3, (4, 6)])
def test_pooling(bins):
    x = torch.randn(2, 3, 7, 5)
    wanted = nn.AdaptiveAvgPool2d(bins)(x)
    torch.testing.assert_close(MatrixPool(bins)(x), wanted)

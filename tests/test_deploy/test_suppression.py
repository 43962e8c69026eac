"""Suppression that is written to be exported is that of mmcv."""

import numpy as np
import onnxruntime
import pytest
import torch
from mmcv.ops import batched_nms
from mmengine.config import ConfigDict
from torch import nn

from mmmobilemamba.deploy.detectors import suppress
from mmmobilemamba.deploy.graph import make_graph

CFG = ConfigDict(
    nms=dict(type='nms', iou_threshold=0.5), score_thr=0.1, max_per_img=30
)


class Suppress(nn.Module):
    """Takes boxes, score and label as columns."""

    def forward(self, x):
        boxes, scores, labels = x.split([4, 1, 1], dim=1)
        return suppress(boxes, scores[:, 0], labels[:, 0].long(), CFG)


@pytest.mark.parametrize('count', [200, 5])  # that score enough
def test_suppression_is_that_of_mmcv(count):
    torch.manual_seed(count)
    corner = torch.rand(200, 2) * 50
    boxes = torch.cat((corner, corner + torch.rand(200, 2) * 40), -1)
    scores, labels = torch.rand(200), torch.randint(3, (200,))
    scores[count:] = 0.05
    x = torch.cat((boxes, scores[:, None], labels[:, None]), 1)
    names = ['boxes', 'scores', 'labels']
    model = make_graph(Suppress().eval(), x, names, {})
    session = onnxruntime.InferenceSession(model.SerializeToString())
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

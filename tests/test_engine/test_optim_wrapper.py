"""bfloat16 on a CPU, where operators of mmcv have float32 only."""

import pytest
import torch
from mmcv.ops import RoIAlign
from torch import nn

from mmmobilemamba.engine import CPUAmpOptimWrapper


class Detector(nn.Module):
    """Where mmcv's operators and a head meet bfloat16 features."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)
        self.align = RoIAlign((2, 2), spatial_scale=1.0)
        self.head = nn.Conv2d(8, 2, 1)
        # What makes a head of it.
        self.head.predict_by_feat = None
        self.head.forward = self.head.forward

    def forward(self, image, rois):
        feats = self.backbone(image)
        return feats, self.align(feats, rois), self.head(feats)


def test_bfloat16_but_for_mmcv_operators():
    torch.manual_seed(0)
    model, image = Detector(), torch.randn(1, 3, 8, 8)
    rois = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])
    own = model.head.forward
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match='float16'):
        CPUAmpOptimWrapper('float16', optimizer=optimizer)
    wrapper = CPUAmpOptimWrapper(optimizer=optimizer)
    with wrapper.optim_context(model):
        feats, aligned, scores = model(image, rois)
    assert feats.dtype == torch.bfloat16
    # As the features are, so that a RoI extractor can put them together.
    assert aligned.dtype == torch.bfloat16
    # mmcv's non-maximum suppression reads what the head returns.
    assert scores.dtype == torch.float32
    plain = model(image, rois)
    torch.testing.assert_close(aligned.float(), plain[1], atol=0.05, rtol=0.05)
    # Outside of the step, or where it fails, nothing is cast.
    with pytest.raises(ZeroDivisionError), wrapper.optim_context(model):
        raise ZeroDivisionError
    assert plain[0].dtype == torch.float32
    assert model.head.forward is own
    assert 'forward' not in vars(model.align)
    before = model.backbone.weight.clone()
    wrapper.update_params(aligned.float().square().mean() + scores.mean())
    assert not torch.equal(model.backbone.weight, before)

import pytest
import torch
from torch import nn

from mmmobilemamba.engine import CPUAmpOptimWrapper


def make_wrapper(model, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return CPUAmpOptimWrapper(optimizer=optimizer, **kwargs)


class Detector(nn.Module):
    """Where mmcv's operators and a head meet bfloat16 features."""

    def __init__(self):
        super().__init__()
        ops = pytest.importorskip('mmcv.ops')
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)
        self.align = ops.RoIAlign((2, 2), spatial_scale=1.0)
        self.head = nn.Conv2d(8, 2, 1)
        # What makes a head of it.
        self.head.predict_by_feat = None

    def forward(self, image, rois):
        feats = self.backbone(image)
        return feats, self.align(feats, rois), self.head(feats)


def test_bfloat16_but_for_mmcv_operators():
    torch.manual_seed(0)
    model = Detector()
    image = torch.randn(1, 3, 8, 8)
    rois = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])
    before = model.backbone.weight.detach().clone()
    wrapper = make_wrapper(model, clip_grad=dict(max_norm=1.0))
    with wrapper.optim_context(model):
        feats, aligned, scores = model(image, rois)
    assert feats.dtype == torch.bfloat16
    # As the features are, so that a RoI extractor can put them together.
    assert aligned.dtype == torch.bfloat16
    # mmcv's non-maximum suppression reads what the head returns.
    assert scores.dtype == torch.float32
    torch.testing.assert_close(
        aligned.float(), model(image, rois)[1], atol=0.05, rtol=0.05
    )
    wrapper.update_params(aligned.float().square().mean() + scores.mean())
    assert model.backbone.weight.dtype == torch.float32
    assert not torch.equal(model.backbone.weight, before)
    # Outside of the step nothing is cast.
    assert model(image, rois)[0].dtype == torch.float32


def test_forward_functions_come_back():
    model = Detector()
    model.head.forward = own = model.head.forward
    image, rois = torch.randn(1, 3, 8, 8), torch.zeros(1, 5)
    with (
        pytest.raises(ZeroDivisionError),
        make_wrapper(model).optim_context(model),
    ):
        model(image, rois)
        raise ZeroDivisionError
    assert model.head.__dict__['forward'] is own
    assert 'forward' not in model.align.__dict__

import pytest
import torch
from torch import nn

from mmmobilemamba.engine import CPUAmpOptimWrapper


def make_wrapper(model, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return CPUAmpOptimWrapper(optimizer=optimizer, **kwargs)


def test_computes_in_bfloat16_and_updates_float32():
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    before = model.weight.detach().clone()
    wrapper = make_wrapper(model, clip_grad=dict(max_norm=1.0))
    with wrapper.optim_context(model):
        output = model(torch.randn(8, 4))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().square().mean())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    # Outside of the step nothing is cast.
    assert model(torch.randn(8, 4)).dtype == torch.float32


@pytest.mark.parametrize('dtype', ['float16', 'float32', torch.float16])
def test_refuses_other_dtypes(dtype):
    with pytest.raises(ValueError, match='bfloat16'):
        make_wrapper(nn.Linear(2, 1), dtype=dtype)


class Detector(nn.Module):
    """Where mmcv's operators and a head meet bfloat16 features."""

    def __init__(self):
        super().__init__()
        ops = pytest.importorskip('mmcv.ops')
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)
        self.align = ops.RoIAlign((2, 2), spatial_scale=1.0)
        self.head = Head()

    def forward(self, image, rois):
        feats = self.backbone(image)
        return feats, self.align(feats, rois), self.head(feats)


class Head(nn.Conv2d):
    def __init__(self):
        super().__init__(8, 2, 1)

    def predict_by_feat(self):
        raise NotImplementedError


def test_mmcv_operators_run_in_float32():
    torch.manual_seed(0)
    model = Detector()
    image = torch.randn(1, 3, 8, 8)
    rois = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])
    wrapper = make_wrapper(model)
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
    (aligned.float().mean() + scores.mean()).backward()
    assert model.backbone.weight.grad is not None


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

"""The classification head: form, average of two heads, losses."""

import pytest
import torch

pytest.importorskip('mmpretrain')

from mmpretrain.structures import DataSample  # noqa: E402

from mmmobilemamba.models import BNLinearClsHead  # noqa: E402


def make_samples(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def make_head(**kwargs):
    torch.manual_seed(0)
    head = BNLinearClsHead(num_classes=5, in_channels=12, **kwargs)
    head.init_weights()
    return head


def test_scores_are_linear_of_batch_norm():
    head = make_head().eval()
    with torch.no_grad():
        for tensor in (head.bn.running_mean, head.bn.weight, head.bn.bias):
            tensor.normal_()
        head.bn.running_var.uniform_(0.5, 1.5)
    x = torch.randn(3, 12)
    normal = (x - head.bn.running_mean) / (head.bn.running_var + 1e-5).sqrt()
    normal = normal * head.bn.weight + head.bn.bias
    want = normal @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head((torch.zeros(3, 4), x)), want)


def test_initial_values():
    head = BNLinearClsHead(num_classes=1000, in_channels=448)
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.fc.bias.any()


def test_two_heads_are_averaged():
    head = make_head(with_distill_head=True).eval()
    feats = (torch.randn(4, 12),)
    first, second = head.forward_heads(feats)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(head(feats), (first + second) / 2)


@pytest.mark.parametrize('with_distill_head', [False, True])
def test_loss_reaches_every_parameter(with_distill_head):
    head = make_head(with_distill_head=with_distill_head)
    losses = head.loss((torch.randn(4, 12),), make_samples([0, 1, 2, 3]))
    assert set(losses) == {'loss'} | (
        {'loss_distill'} if with_distill_head else set()
    )
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name

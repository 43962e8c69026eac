"""The classification head: initial values, average of two."""

import pytest
import torch

pytest.importorskip('mmpretrain')

from mmmobilemamba.models import BNLinearClsHead  # noqa: E402


def test_initial_values():
    head = BNLinearClsHead(num_classes=1000, in_channels=448)
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.fc.bias.any()


def test_two_heads_are_averaged():
    torch.manual_seed(0)
    head = BNLinearClsHead(5, 12, with_distill_head=True).eval()
    feats = (torch.randn(4, 12),)
    first, second = head.forward_heads(feats)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(head(feats), (first + second) / 2)

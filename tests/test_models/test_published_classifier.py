"""The published classifiers and their head."""

from pathlib import Path

import pytest
import torch
from golden import cases, made_input, made_state_dict, relative_error
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.checkpoints.key_map import state_dict_from_published

pytest.importorskip('mmpretrain')

from mmmobilemamba.models import BNLinearClsHead  # noqa: E402

CONFIGS = Path(__file__).parents[2] / 'configs/cls/mobilemamba'


@pytest.mark.parametrize('variant', list(cases()))
def test_golden_logits(variant):
    case = cases()[variant]
    name = f'mobilemamba-{variant}_8xb128-300e_in1k-[0-9]*px.py'
    (path,) = CONFIGS.glob(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(path).model).eval()
    given = state_dict_from_published(made_state_dict(variant)).items()
    model.load_state_dict(
        {k if k.startswith('head.') else f'backbone.{k}': v for k, v in given}
    )
    with torch.no_grad():
        logits = model(made_input(case), mode='tensor')
    assert relative_error(logits, case['logits']) < 1e-4


def test_head():
    """Initial values; two heads are averaged."""
    loss = torch.nn.Identity()
    head = BNLinearClsHead(1000, 448, with_distill_head=True, loss=loss).eval()
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.fc.bias.any()
    feats = (torch.randn(4, 448),)
    first, second = head.forward_heads(feats)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(head(feats), (first + second) / 2)

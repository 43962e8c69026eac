"""The published classifiers, built from the configs by mmpretrain."""

from pathlib import Path

import pytest
import torch
from golden import cases, made_input, made_state_dict, relative_error
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.checkpoints.key_map import state_dict_from_published

pytest.importorskip('mmpretrain')

CONFIGS = Path(__file__).parents[2] / 'configs/cls/mobilemamba'


def classifier(variant: str) -> torch.nn.Module:
    """Build the model of a variant's config."""
    name = f'mobilemamba-{variant}_8xb128-300e_in1k-[0-9]*px.py'
    (path,) = CONFIGS.glob(name)
    config = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config.model)


@pytest.mark.parametrize('variant', list(cases()))
def test_golden_logits(variant):
    case = cases()[variant]
    model = classifier(variant).eval()
    ours = {
        name if name.startswith('head.') else f'backbone.{name}': value
        for name, value in state_dict_from_published(
            made_state_dict(variant)
        ).items()
    }
    model.load_state_dict(ours, strict=True)
    with torch.no_grad():
        logits = model(made_input(case), mode='tensor')
    assert relative_error(logits, case['logits']) < 1e-4

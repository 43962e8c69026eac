"""Learning rates by the layer of the backbone."""

from unittest.mock import Mock

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmobilemamba.models import MobileMamba

# Exponents of a decay of 0.5 in 8 layers: stem, block, downsampling, two
# blocks, downsampling, block, what follows.
EXPONENTS = {
    'backbone.stem.': 7,
    'backbone.stages.0.blocks.0.': 6,
    'backbone.stages.1.downsample.': 5,
    'backbone.stages.1.blocks.0.': 4,
    'backbone.stages.1.blocks.1.': 3,
    'backbone.stages.2.downsample.': 2,
    'backbone.stages.2.blocks.0.': 1,
    'neck.': 0,
}


def wrap(model, **rules):
    kind = 'mmmobilemamba.LayerDecayOptimWrapperConstructor'
    optimizer = dict(type='AdamW', lr=1.0, weight_decay=0.1)
    cfg = dict(constructor=kind, optimizer=optimizer, paramwise_cfg=rules)
    return build_optim_wrapper(model, cfg)


def test_rates_by_layer():
    model = nn.Module()
    arch = dict(channels=(32, 40, 48), depths=(1, 2, 1))
    model.backbone, model.neck = MobileMamba(arch), nn.Linear(2, 2)
    rules = dict(custom_keys=dict(neck=dict(lr_mult=10)), norm_decay_mult=0.0)
    wrapper = wrap(model, layer_decay_rate=0.5, **rules)
    names = {p: name for name, p in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        (parameter,) = group['params']
        name = names.pop(parameter)
        (prefix,) = (p for p in EXPONENTS if name.startswith(p))
        rate = 10 if prefix == 'neck.' else 0.5 ** EXPONENTS[prefix]
        assert group['lr'] == pytest.approx(rate), name
        assert '.bn.' not in name or not group['weight_decay'], name
    assert not names


def test_what_cannot_be():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    for _ in range(2):
        with pytest.raises(ValueError, match='get_layer_depth'):
            wrap(model, layer_decay_rate=0.5)
        # MMPretrain's ResNet has it for some depths.
        model.backbone.get_layer_depth = Mock(side_effect=NotImplementedError)
    for rules in (dict(bias_lr_mult=1.0), dict(layer_decay_rate=1.5)):
        with pytest.raises(ValueError, match='layer_decay_rate'):
            wrap(model, **rules)

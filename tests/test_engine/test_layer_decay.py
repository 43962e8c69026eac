"""Learning rates by the layer of the backbone."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmobilemamba.models import MobileMamba

# Learning rates over the base rate, with a decay of 0.5 and 8 layers: stem,
# block, downsampling, two blocks, downsampling, block, what follows.
FACTORS = {
    'backbone.stem.': 0.5**7,
    'backbone.stages.0.blocks.0.': 0.5**6,
    'backbone.stages.1.downsample.': 0.5**5,
    'backbone.stages.1.blocks.0.': 0.5**4,
    'backbone.stages.1.blocks.1.': 0.5**3,
    'backbone.stages.2.downsample.': 0.5**2,
    'backbone.stages.2.blocks.0.': 0.5,
    'neck.': 1,
    'decode_head.': 10,
}


def wrap(model, **rules):
    return build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            constructor='mmmobilemamba.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=rules,
        ),
    )


def test_rates_by_layer():
    """As MMPretrain's for classifiers, and with the default one's rules."""
    model = nn.Module()
    arch = dict(channels=(32, 40, 48), depths=(1, 2, 1))
    model.backbone = MobileMamba(arch)
    model.neck, model.decode_head = nn.Linear(2, 2), nn.Linear(2, 2)
    wrapper = wrap(
        model,
        layer_decay_rate=0.5,
        norm_decay_mult=0.0,
        custom_keys=dict(decode_head=dict(lr_mult=10)),
    )
    names = {p: name for name, p in model.named_parameters()}
    norms = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
    }
    met = set()
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names.pop(parameter)
            (prefix,) = (p for p in FACTORS if name.startswith(p))
            met.add(prefix)
            assert group['lr'] == pytest.approx(FACTORS[prefix]), name
            assert parameter not in norms or not group['weight_decay'], name
    assert not names and met == set(FACTORS)


def test_what_cannot_be():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='get_layer_depth'):
        wrap(model, layer_decay_rate=0.5)
    for rules in (dict(bias_lr_mult=1.0), dict(layer_decay_rate=1.5)):
        with pytest.raises(ValueError, match='layer_decay_rate'):
            wrap(model, **rules)

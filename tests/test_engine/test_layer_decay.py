"""Learning rates by layer, in classifiers and in dense models."""

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

OURS = 'mmmobilemamba.LayerDecayOptimWrapperConstructor'
BACKBONE = dict(
    type='mmmobilemamba.MobileMamba',
    arch=dict(channels=(32, 40, 48), depths=(1, 2, 1)),
)
MODEL = dict(
    mmpretrain=dict(
        type='ImageClassifier',
        backbone=dict(BACKBONE, out_indices=(2,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='mmmobilemamba.BNLinearClsHead', num_classes=3, in_channels=48
        ),
    ),
    mmseg=dict(
        type='EncoderDecoder',
        backbone=BACKBONE,
        decode_head=dict(
            type='FCNHead', in_channels=48, channels=16, num_classes=3
        ),
    ),
)
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
    'head.': 1,
    'decode_head.': 10,
}


def wrap(model, **rules):
    return build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            constructor=OURS,
            paramwise_cfg=rules,
        ),
    )


@pytest.mark.parametrize('scope', MODEL)
def test_rates_by_layer(scope):
    """As MMPretrain's for classifiers, and with the default one's rules."""
    pytest.importorskip(scope)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(MODEL[scope])
    rules = dict(norm_decay_mult=0.0, flat_decay_mult=0.0)
    if scope == 'mmseg':
        rules['custom_keys'] = dict(decode_head=dict(lr_mult=10))
    wrapper = wrap(model, layer_decay_rate=0.5, **rules)
    names = {p: name for name, p in model.named_parameters()}
    met = set()
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names.pop(parameter)
            (prefix,) = (p for p in FACTORS if name.startswith(p))
            met.add(prefix)
            assert group['lr'] == pytest.approx(FACTORS[prefix]), name
            norm = parameter.dim() == 1 and 'decode_head' not in name
            assert not norm or group['weight_decay'] == 0, name
    assert not names and len(met) == 8


def test_what_cannot_be():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='get_layer_depth'):
        wrap(model, layer_decay_rate=0.5)
    for rules in (dict(bias_lr_mult=1.0), dict(layer_decay_rate=1.5)):
        with pytest.raises(ValueError, match='layer_decay_rate'):
            wrap(model, **rules)

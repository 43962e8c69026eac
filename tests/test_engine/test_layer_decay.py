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
    'head.': 1,
    'decode_head.': 1,
}


def groups_of(model, constructor, **rules):
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            constructor=constructor,
            paramwise_cfg=dict(layer_decay_rate=0.5, **rules),
        ),
    )
    names = {p: name for name, p in model.named_parameters()}
    return {
        names[parameter]: group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


def build(scope, config):
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config)


def classifier():
    pytest.importorskip('mmpretrain')
    return build(
        'mmpretrain',
        dict(
            type='ImageClassifier',
            backbone=dict(BACKBONE, out_indices=(2,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='mmmobilemamba.BNLinearClsHead',
                num_classes=3,
                in_channels=48,
            ),
        ),
    )


def segmentor():
    pytest.importorskip('mmseg')
    return build(
        'mmseg',
        dict(
            type='EncoderDecoder',
            backbone=BACKBONE,
            neck=dict(
                type='mmmobilemamba.DeconvFPN',
                in_channels=[32, 40, 48],
                out_channels=16,
                num_finer=1,
            ),
            decode_head=dict(
                type='FPNHead',
                in_channels=[16, 16, 16],
                in_index=[0, 1, 2],
                feature_strides=[8, 16, 32],
                channels=16,
                num_classes=3,
            ),
        ),
    )


@pytest.mark.parametrize(
    ('make', 'constructor'),
    [
        (classifier, 'mmpretrain.LearningRateDecayOptimWrapperConstructor'),
        (classifier, OURS),
        (segmentor, OURS),
    ],
    ids=['mmpretrain', 'ours', 'ours in mmseg'],
)
def test_rates_by_layer(make, constructor):
    model = make()
    groups = groups_of(
        model, constructor, norm_decay_mult=0.0, flat_decay_mult=0.0
    )
    assert set(groups) == {name for name, _ in model.named_parameters()}
    met = set()
    for name, group in groups.items():
        (prefix,) = (p for p in FACTORS if name.startswith(p))
        assert group['lr'] == pytest.approx(FACTORS[prefix]), name
        met.add(prefix)
        if dict(model.named_parameters())[name].dim() == 1:
            assert group['weight_decay'] == 0, name
    assert len(met) >= 8


def test_rules_of_the_default_constructor_hold():
    groups = groups_of(
        segmentor(),
        OURS,
        custom_keys=dict(decode_head=dict(lr_mult=10), stem=dict(lr_mult=2)),
    )
    for name, group in groups.items():
        if name.startswith('decode_head.'):
            assert group['lr'] == 10
        elif name.startswith('backbone.stem.'):
            assert group['lr'] == pytest.approx(2 * 0.5**7)


@pytest.mark.parametrize('rate', [None, 0, 1.5])
def test_bad_rate(rate):
    rules = {} if rate is None else dict(layer_decay_rate=rate)
    with pytest.raises(ValueError, match=r'layer_decay_rate.*\(0, 1\]'):
        build_optim_wrapper(
            nn.Linear(2, 2),
            dict(
                optimizer=dict(type='SGD', lr=1.0),
                constructor=OURS,
                paramwise_cfg=dict(rules, bias_lr_mult=1.0),
            ),
        )


def test_backbone_without_depths():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='get_layer_depth'):
        groups_of(model, OURS)

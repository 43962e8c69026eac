"""Configs at random: right ones build and run, wrong ones say what is wrong.

A wrong one is a right one with one argument spoiled. It has to end in a
ValueError or a TypeError that names the argument. More examples::

    pytest tests/test_models/test_wrong_configs.py --hypothesis-profile=long
"""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from random_configs import assert_refused, config, wrong
from wrong_values import (
    wrong_bools,
    wrong_dicts,
    wrong_inits,
    wrong_ints,
    wrong_ints_in,
    wrong_numbers,
)

import mmmobilemamba  # noqa: F401


def rises(values):
    return values == sorted(set(values))


def rate(value):
    return 0 <= value < 1


def wrong_shares():
    """Draw what is no three numbers in [0, 1]."""
    return st.sampled_from([None, 0.2, '0.2', [], [0.2], [0.2] * 4, {}]) | (
        wrong_numbers(lambda v: 0 <= v <= 1).map(lambda v: [0.2, v, 0.3])
    )


OUTS = st.sets(st.integers(0, 2), min_size=1).map(sorted)
BN = st.builds(
    dict,
    type=st.sampled_from(['BN', 'BN2d', 'SyncBN']),
    eps=st.floats(1e-6, 1),
    momentum=st.none() | st.floats(0, 1),
    requires_grad=st.booleans(),
)
WRONG_BN = wrong_dicts() | st.sampled_from(
    [dict(type='GN', num_groups=2), dict(type='LN')]
    + [dict(type='BN', affine=False), dict(type='BN', eps=-1.0)]
    + [dict(type='BN', track_running_stats=False), dict(type='BN', eps='a')]
    + [dict(type='BN', eps=float('nan')), dict(type='BN', momentum=2)]
    + [dict(type='BN', requires_grad=1)]
)
INIT = st.none() | st.sampled_from(
    [dict(type='Kaiming', layer='Conv2d'), [dict(type='Xavier')]]
)
LISTED_FILE = st.just([dict(type='Pretrained', checkpoint='a.pth')])

# Argument: right values, wrong values.
ARCH = {
    'channels': (
        st.tuples(st.sampled_from([24, 40]), *[st.integers(24, 40)] * 2),
        wrong_ints_in([3], 1, 16384, right=lambda v: v[0] % 8 == 0),
    ),
    'depths': (
        st.tuples(*[st.integers(1, 2)] * 3),
        wrong_ints_in([3], 1, 1000),
    ),
    'kernel_sizes': (
        st.tuples(*[st.sampled_from([1, 3, 5, 9])] * 3),
        wrong_ints_in([3], 1, 127, right=lambda v: all(k % 2 for k in v)),
    ),
    'global_ratios': (st.tuples(*[st.floats(0, 0.6)] * 3), wrong_shares()),
    'local_ratios': (st.tuples(*[st.floats(0.2, 1)] * 3), wrong_shares()),
    'ssm_ratio': (
        st.floats(0.5, 4) | st.integers(1, 3),
        wrong_numbers(lambda v: 0 < v <= 16),
    ),
    'd_state': (st.integers(1, 5), wrong_ints(1, 256)),
    'scan_directions': (
        st.sampled_from([1, 2, 4]),
        wrong_ints(1, 4) | st.just(3),
    ),
    'wavelet_levels': (st.integers(0, 2), wrong_ints(0, 3)),
    'local_splits': (st.integers(1, 3), wrong_ints(1, 3)),
    'drop_path_rate': (st.floats(0, 0.5), wrong_numbers(rate)),
}
MOBILEMAMBA = {
    'in_channels': (st.integers(1, 5), wrong_ints(1, 16384)),
    'out_indices': (
        OUTS | st.integers(-3, 2) | st.just((-2, -1)),
        wrong_ints_in([1, 2, 3], 0, 2, right=rises).filter(
            lambda v: not isinstance(v, int)
        ),
    ),
    'frozen_stages': (st.integers(-1, 3), wrong_ints(-1, 3)),
    'norm_eval': (st.booleans(), wrong_bools()),
    'drop_path_rate': (
        st.none() | st.floats(0, 0.9),
        wrong_numbers(rate, none=False),
    ),
    'norm_cfg': (st.none() | BN, WRONG_BN),
    'with_cp': (st.booleans(), wrong_bools()),
    'deploy': (st.booleans(), wrong_bools()),
    'init_cfg': (INIT, wrong_inits() | LISTED_FILE),
}
TIMM = {
    'out_indices': (
        st.none() | st.sets(st.integers(0, 3), min_size=1).map(sorted),
        wrong_ints_in([1, 2, 3, 4], 0, 3, right=rises).filter(
            lambda v: v is not None
        ),
    ),
    'in_channels': (st.integers(1, 5), wrong_ints(1, 16384)),
    'frozen_stages': (st.integers(-1, 4), wrong_ints(-1, 4)),
    'norm_eval': (st.booleans(), wrong_bools()),
    'with_cp': (st.booleans(), wrong_bools()),
    'pretrained': (st.just(False), wrong_bools()),
    'init_cfg': (INIT, wrong_inits() | LISTED_FILE),
    'drop_path_rate': (st.floats(0, 0.5), wrong_numbers(rate, none=False)),
    'model_name': (
        st.just('mambaout_femto'),
        st.sampled_from([None, 3, '', 'no_such_net', ['resnet18'], {}]),
    ),
}
NECK = {
    'in_channels': (
        st.lists(st.integers(1, 20), min_size=3, max_size=3),
        wrong_ints_in(range(1, 9), 1, 16384),
    ),
    'out_channels': (st.sampled_from([4, 16]), wrong_ints(1, 16384)),
    'num_finer': (st.integers(0, 3), wrong_ints(0, 8)),
    'num_coarser': (st.integers(0, 3), wrong_ints(0, 8)),
    'norm_cfg': (
        st.none() | BN | st.just(dict(type='GN', num_groups=2)),
        wrong_dicts()
        | st.sampled_from(
            [dict(type='GN'), dict(type='GN', num_groups=3), dict(type='LN')]
        ),
    ),
    'init_cfg': (INIT, wrong_inits().filter(lambda v: v != {})),
}
STRIDES = {
    'in_strides': (
        st.just([8, 16, 32]),
        wrong_ints_in(
            [3], 1, right=lambda v: v == [v[0] * i for i in (1, 2, 4)]
        ),
    ),
    'out_strides': (
        st.sampled_from([[4, 8, 16], (16, 32, 64), [8]]),
        wrong_ints_in(
            [1, 2], 1, 32, right=lambda v: v in ([8], [16], [32], [8, 16])
        ).filter(lambda v: v is not None)
        | st.just([8 * 2**i for i in range(20)])
        | st.just([128, 256]),
    ),
}


def mobilemamba(**kwargs):
    return dict(type='mmmobilemamba.MobileMamba', **kwargs)


SMALL = dict(channels=(24, 24, 24), depths=(1, 1, 1))


@settings(max_examples=settings().max_examples // 2)
@given(config(ARCH, **SMALL), config(MOBILEMAMBA))
def test_right_mobilemamba(arch, kwargs):
    model = MODELS.build(mobilemamba(arch=arch, **kwargs)).eval()
    with torch.no_grad():
        outs = model(torch.rand(1, kwargs.get('in_channels', 3), 33, 32))
    assert [m.shape[1] for m in outs] == model.out_channels
    if not kwargs.get('deploy'):
        assert all(m.isfinite().all() for m in outs)


@given(wrong(MOBILEMAMBA))
def test_wrong_mobilemamba(drawn):
    name, kwargs = drawn
    build = partial(MODELS.build, mobilemamba(arch=SMALL, **kwargs))
    assert_refused(name, kwargs[name], build)


@given(wrong(ARCH, **SMALL))
def test_wrong_arch(drawn):
    name, arch = drawn
    build = partial(MODELS.build, mobilemamba(arch=arch))
    assert_refused(name, arch[name], build)


@given(
    st.sampled_from([None, 3, 2.5, True, [], (SMALL,), 'b3', '', b'b1', {}])
    | st.fixed_dictionaries({'channels': st.just((24, 24, 24))})
    | st.text(max_size=4).map(lambda key: {**SMALL, key + '?': 1})
    | st.integers().map(lambda key: {**SMALL, key: 1})
)
def test_wrong_arch_as_a_whole(arch):
    build = partial(MODELS.build, mobilemamba(arch=arch))
    assert_refused('arch', arch, build)


@given(wrong(TIMM, model_name='mambaout_femto'))
def test_wrong_timm(drawn):
    name, kwargs = drawn
    pytest.importorskip('timm')
    cfg = dict(type='mmmobilemamba.TIMMBackbone', **kwargs)
    assert_refused(name, kwargs[name], partial(MODELS.build, cfg))


def neck(**kwargs):
    return dict(type='mmmobilemamba.DeconvFPN', **kwargs)


RIGHT_NECK = dict(in_channels=[8, 12, 16], out_channels=4)


@given(config(NECK, **RIGHT_NECK))
def test_right_neck(kwargs):
    model = MODELS.build(neck(**kwargs)).eval()
    maps = [
        torch.rand(1, channels, 8 // 2**i, 12 // 2**i)
        for i, channels in enumerate(kwargs['in_channels'])
    ]
    outs = model(maps)
    assert len(outs) == model.num_outs
    assert {m.shape[1] for m in outs} == {kwargs['out_channels']}


@given(wrong(NECK, **RIGHT_NECK))
def test_wrong_neck(drawn):
    name, kwargs = drawn
    build = partial(MODELS.build, neck(**kwargs))
    assert_refused(name, kwargs[name], build)


@given(
    wrong(STRIDES, in_strides=[8, 16, 32], out_strides=[4, 8], **RIGHT_NECK)
)
def test_wrong_strides(drawn):
    name, kwargs = drawn
    build = partial(MODELS.build, neck(**kwargs))
    assert_refused(name, kwargs[name], build)


WRAPPER = {
    'backbone': (
        st.just(mobilemamba(arch=SMALL)),
        wrong_dicts()
        | st.sampled_from([mobilemamba(arch='b3'), mobilemamba(depth=3)])
        | st.just(dict(type='mmmobilemamba.DeconvFPN', **RIGHT_NECK)),
    ),
    'neck': (
        st.just(neck(out_channels=4)),
        wrong_dicts()
        | st.sampled_from(
            [neck(), neck(out_channels=0), neck(out_channels=4, levels=3)]
        )
        | st.just(neck(in_channels=[8, 16, 16], out_channels=4)),
    ),
    'init_cfg': (INIT, wrong_inits()),
}


@given(wrong(WRAPPER))
def test_wrong_wrapper(drawn):
    name, kwargs = drawn
    cfg = dict(
        type='mmmobilemamba.PyramidBackbone',
        backbone=mobilemamba(arch=SMALL),
        neck=neck(out_channels=4),
    )
    cfg.update(kwargs)
    assert_refused(name, kwargs[name], partial(MODELS.build, cfg))

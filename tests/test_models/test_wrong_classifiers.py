"""Classifiers at random: right ones score, wrong ones say what is wrong.

As ``test_wrong_configs.py``, for the ImageNet head and for distillation.
"""

from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS, DefaultScope
from random_configs import assert_refused, config, wrong
from wrong_values import (
    wrong_bools,
    wrong_dicts,
    wrong_inits,
    wrong_ints,
    wrong_ints_in,
    wrong_numbers,
)

pytest.importorskip('mmpretrain')

from mmpretrain.structures import DataSample  # noqa: E402

CLASSES = 7
INIT = st.none() | st.sampled_from(
    [dict(type='Constant', layer='Linear', val=0.1), [dict(type='Xavier')]]
)
LOSSES = [
    dict(type='CrossEntropyLoss'),
    dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
]

# Argument: right values, wrong values.
HEAD = {
    'num_classes': (st.integers(5, 9), wrong_ints(1, 1_000_000)),
    'in_channels': (st.integers(1, 9), wrong_ints(1, 16384)),
    'with_distill_head': (st.booleans(), wrong_bools()),
    'loss': (st.sampled_from(LOSSES), wrong_dicts() | st.none()),
    'topk': (
        st.integers(1, 5) | st.sampled_from([(1,), (1, 5), [2, 3]]),
        wrong_ints_in(range(1, 9), 1).filter(lambda v: type(v) is not int)
        | st.integers(max_value=0),
    ),
    'cal_acc': (st.booleans(), wrong_bools()),
    'init_cfg': (INIT, wrong_inits()),
}
RIGHT_HEAD = dict(num_classes=CLASSES, in_channels=6)


def build(**cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        # mmpretrain writes into the configs of parts.
        return MODELS.build(deepcopy(cfg))


def head(**kwargs):
    return dict(type='mmmobilemamba.BNLinearClsHead', **kwargs)


@given(config(HEAD, **RIGHT_HEAD))
def test_right_head(kwargs):
    model = build(**head(**kwargs))
    model.init_weights()
    feats = (torch.rand(3, kwargs['in_channels']),)
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    losses = model.train().loss(feats, samples)
    assert all(torch.as_tensor(v).isfinite().all() for v in losses.values())
    assert ('loss_distill' in losses) == kwargs.get('with_distill_head', False)
    assert any('accuracy' in k for k in losses) == kwargs.get('cal_acc', False)
    scores = model.eval()(feats)
    assert scores.shape == (3, kwargs['num_classes'])


@given(wrong(HEAD, **RIGHT_HEAD))
def test_wrong_head(drawn):
    name, kwargs = drawn
    assert_refused(name, kwargs[name], partial(build, **head(**kwargs)))


@pytest.mark.parametrize('topk', [4, (1, 4)])
def test_more_guesses_than_classes(topk):
    kwargs = dict(RIGHT_HEAD, num_classes=3, topk=topk)
    build(**head(**kwargs))
    with pytest.raises(ValueError, match='topk.*1 to 3, got 4'):
        build(**head(cal_acc=True, **kwargs))


STUDENT = dict(
    backbone=dict(
        type='mmmobilemamba.MobileMamba',
        arch=dict(channels=(24, 24, 24), depths=(1, 1, 1)),
        out_indices=(2,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=head(num_classes=CLASSES, in_channels=24),
)
PIXELS = dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
TEACHER = dict(type='ImageClassifier', data_preprocessor=PIXELS, **STUDENT)


def without(cfg, *names):
    return {key: value for key, value in cfg.items() if key not in names}


DISTILLED = {
    'backbone': (
        st.just(STUDENT['backbone']),
        wrong_dicts()
        | st.none()
        | st.just(dict(STUDENT['backbone'], arch='b3'))
        | st.just(dict(STUDENT['backbone'], depth=3)),
    ),
    'neck': (
        st.just(STUDENT['neck']),
        wrong_dicts() | st.just(dict(STUDENT['neck'], channels=3)),
    ),
    'head': (
        st.just(STUDENT['head']),
        wrong_dicts()
        | st.none()
        | st.just(without(STUDENT['head'], 'num_classes'))
        | st.just(dict(STUDENT['neck']))
        | st.just(dict(STUDENT['head'], num_classes=0)),
    ),
    'teacher_ckpt': (
        st.none() | st.just('teacher.pth'),
        st.sampled_from([3, 2.5, True, [], ['teacher.pth'], {}, b'a', ()]),
    ),
    'teacher_size': (
        st.none() | st.integers(1, 512) | st.just((64, 48)),
        wrong_ints_in([2], 1, 65536).filter(lambda v: v is not None)
        | st.integers(max_value=0)
        | st.integers(65537),
    ),
    'distill_mode': (
        st.sampled_from(['soft', 'hard']),
        st.sampled_from([None, '', 'Soft', 'both', 1, True, ['soft'], {}]),
    ),
    'distill_weight': (
        st.floats(0.1, 10) | st.integers(1, 9),
        wrong_numbers(lambda v: v > 0),
    ),
    'temperature': (
        st.floats(0.1, 10) | st.integers(1, 9),
        wrong_numbers(lambda v: v > 0),
    ),
    'data_preprocessor': (
        st.none() | st.just(PIXELS),
        wrong_dicts().filter(lambda v: isinstance(v, dict) and v.get('type'))
        | st.sampled_from([3, 'BN', True, [PIXELS], dict(mean='a')])
        | st.sampled_from([dict(mean=[1.0, 2.0]), dict(colour='rgb')]),
    ),
    'init_cfg': (INIT, wrong_inits()),
    'teacher': (
        st.none() | st.just(TEACHER),
        st.sampled_from([3, 2.5, True, [], [TEACHER], (TEACHER,), b'a']),
    ),
}


def distilled(**kwargs):
    return dict(
        type='mmmobilemamba.DistilledClassifier', **{**STUDENT, **kwargs}
    )


@settings(max_examples=settings().max_examples // 2)
@given(config(DISTILLED))
def test_right_distilled(kwargs):
    model = build(**distilled(**kwargs)).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 33, 32)).shape == (2, CLASSES)


@given(wrong(DISTILLED))
def test_wrong_distilled(drawn):
    name, kwargs = drawn
    assert_refused(name, kwargs[name], partial(build, **distilled(**kwargs)))


@pytest.fixture(scope='module')
def teacher_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(build(**TEACHER).state_dict(), path)
    return str(path)


TIMM = dict(type='TimmClassifier', model_name='test_resnet')
WRONG_TEACHERS = wrong_dicts().filter(lambda v: isinstance(v, dict)) | (
    st.sampled_from(
        [
            dict(TEACHER, type='NoSuchClassifier'),
            without(TEACHER, 'type'),
            without(TEACHER, 'data_preprocessor'),
            dict(TEACHER, data_preprocessor=3),
            dict(TEACHER, data_preprocessor=dict(PIXELS, mean='a')),
            dict(TEACHER, data_preprocessor=dict(PIXELS, std=None)),
            dict(TEACHER, backbone=3),
            dict(TEACHER, backbone=dict(STUDENT['backbone'], arch='b3')),
            dict(TEACHER, backbone=dict(type='NoSuchNet')),
            dict(TEACHER, head=None),
            dict(TEACHER, head=dict(STUDENT['head'], num_classes=9)),
            dict(TEACHER, layers=3),
            dict(TEACHER, pretrained='a.pth'),
            dict(TIMM, model_name='no_such_net'),
            dict(TIMM, model_name='hf_hub:timm/resnet18.a1_in1k'),
            dict(TIMM, model_name=3),
            without(TIMM, 'model_name'),
            dict(TIMM, num_classes='a'),
            TIMM,  # other weights than those of the file
        ]
    )
)


def test_right_teacher(teacher_file):
    model = build(**distilled(teacher=TEACHER, teacher_ckpt=teacher_file))
    model.init_weights()
    assert model.teacher(torch.rand(2, 3, 32, 32)).shape == (2, CLASSES)


@given(WRONG_TEACHERS)
def test_wrong_teacher(teacher_file, teacher):
    """It is read when training begins, and that has to say what is wrong."""
    pytest.importorskip('timm')

    def start():
        model = build(**distilled(teacher=teacher, teacher_ckpt=teacher_file))
        model.init_weights()

    assert_refused('teacher', teacher, start)

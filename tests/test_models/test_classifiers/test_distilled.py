"""Distillation: what the teacher sees, what it teaches, where it stays."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, DefaultScope
from torch import nn

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')

from mmpretrain.models import ClsDataPreprocessor  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from mmmobilemamba.models.classifiers.distilled import (  # noqa: E402
    Teacher,
)

CLASSES = 5
SIDE = 64
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
STUDENT = dict(
    type='mmmobilemamba.DistilledClassifier',
    backbone=dict(
        type='mmmobilemamba.MobileMamba',
        arch=dict(channels=(32, 40, 48), depths=(1, 1, 1)),
        out_indices=(2,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmmobilemamba.BNLinearClsHead',
        num_classes=CLASSES,
        in_channels=48,
        loss=dict(type='CrossEntropyLoss'),
    ),
    data_preprocessor=dict(num_classes=CLASSES, **IMAGENET),
)
TIMM = dict(
    type='TimmClassifier', model_name='test_resnet', num_classes=CLASSES
)
PLAIN = dict(
    type='ImageClassifier',
    backbone=STUDENT['backbone'],
    neck=STUDENT['neck'],
    head=dict(STUDENT['head'], type='LinearClsHead'),
    data_preprocessor=dict(mean=[10.0] * 3, std=[50.0] * 3, to_rgb=False),
)


def build(config: dict = STUDENT, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(deepcopy({**config, **kwargs}))


def make_batch(size: int = 4) -> dict:
    generator = torch.Generator().manual_seed(1)
    # Coarse patches, which survive the strides of a network.
    shape = (size, 3, SIDE // 16, SIDE // 16)
    samples = [DataSample().set_gt_label(i % CLASSES) for i in range(size)]
    inputs = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return dict(inputs=F.interpolate(inputs, SIDE), data_samples=samples)


def losses_of(model: nn.Module, batch: dict) -> dict:
    data = model.data_preprocessor(deepcopy(batch), True)
    return model(**data, mode='loss')


@pytest.fixture(scope='module')
def timm_file(tmp_path_factory):
    """Save a timm model with weights of its own; return it and the file."""
    torch.manual_seed(3)
    model = timm.create_model('test_resnet', num_classes=CLASSES).eval()
    # Predictions that differ from picture to picture and from chance.
    nn.init.normal_(model.get_classifier().weight, std=1.0)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(model.state_dict(), path)
    return model, str(path)


@pytest.fixture
def student(timm_file):
    model = build(teacher=TIMM, teacher_ckpt=timm_file[1])
    model.init_weights()
    return model.train()


class Eye(nn.Module):
    """Keep what a teacher is shown."""

    def __init__(self, **preprocessor):
        super().__init__()
        self.data_preprocessor = ClsDataPreprocessor(**preprocessor)
        self.weight = nn.Parameter(torch.zeros(1, CLASSES))

    def forward(self, inputs, mode):
        self.seen = inputs
        return self.weight.expand(len(inputs), -1)


def mix(pictures, scores):
    """Mix neighbours of a batch, as Mixup does."""
    return 0.3 * pictures + 0.7 * pictures.flip(0), scores.float()


@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('normalised', [True, False])
def test_teacher_sees_mixed_pixels_in_its_own_form(to_rgb, normalised):
    preprocessor = dict(STUDENT['data_preprocessor'], to_rgb=to_rgb)
    if not normalised:
        preprocessor = dict(num_classes=CLASSES, to_rgb=to_rgb)
    model = build(
        data_preprocessor=dict(
            preprocessor, batch_augments=dict(augments=[mix])
        )
    )
    eye = Eye(mean=[0.0, 100.0, 0.0], std=[255.0, 1.0, 255.0], to_rgb=False)
    model._teacher = Teacher(eye, size=(SIDE // 2, SIDE))
    batch = make_batch()
    losses_of(model, batch)

    pixels, _ = mix(batch['inputs'].float(), torch.zeros(1))  # BGR, as loaded
    pixels = F.interpolate(pixels, (SIDE // 2, SIDE), mode='bicubic')
    want = pixels / torch.tensor([255.0, 1.0, 255.0]).view(3, 1, 1)
    want[:, 1] -= 100
    torch.testing.assert_close(eye.seen, want, rtol=1e-4, atol=1e-3)


def test_timm_teacher_scores_as_timm_does(student, timm_file):
    pixels = make_batch()['inputs'].float()
    config = timm_file[0].pretrained_cfg
    picture = F.interpolate(
        pixels.flip(1) / 255, config['input_size'][1:], mode='bicubic'
    )
    mean, std = (
        torch.tensor(config[key]).view(3, 1, 1) for key in ('mean', 'std')
    )
    with torch.no_grad():
        want = timm_file[0]((picture - mean) / std)
    assert want.std() > 0
    torch.testing.assert_close(
        student.teacher(pixels), want, rtol=1e-4, atol=1e-5
    )


def test_teacher_from_a_config_of_mmpretrain(tmp_path):
    from mmpretrain import get_model

    name = 'resnet18_8xb32_in1k'
    torch.save(get_model(name).state_dict(), tmp_path / 'teacher.pth')
    path = str(tmp_path / 'teacher.pth')
    model = build(teacher=f'mmpretrain::resnet/{name}.py', teacher_ckpt=path)
    batch, teacher = make_batch(), get_model(name, path).eval()
    with torch.no_grad():
        data = teacher.data_preprocessor(batch)
        want = teacher(data['inputs'], mode='tensor')
    got = model.teacher(batch['inputs'].float())
    torch.testing.assert_close(got, want)


class TestLoss:
    @pytest.mark.parametrize('mode', ['soft', 'hard'])
    def test_value(self, mode):
        model = build(distill_mode=mode, distill_weight=3.0, temperature=2.0)
        student, teacher = torch.randn(2, 4, CLASSES).double().unbind()
        wanted = (teacher / 2).softmax(1)
        ratio = wanted.log() - (student / 2).softmax(1).log()
        want = 4 * (wanted * ratio).sum() / 4
        if mode == 'hard':
            hit = range(4), teacher.argmax(1)
            want = -student.log_softmax(1)[hit].mean()
        torch.testing.assert_close(model.distill_loss(student, teacher), want)

        model._teacher = Teacher(Eye())
        losses = losses_of(model, make_batch())
        data = model.data_preprocessor(make_batch(), True)
        scores = model(data['inputs'], mode='tensor')
        by_hand = 3 * model.distill_loss(scores, torch.zeros_like(scores))
        torch.testing.assert_close(losses['loss_distill'], by_hand)

    def test_each_head_has_its_own_teacher(self, timm_file):
        head = dict(STUDENT['head'], with_distill_head=True)
        model = build(teacher=TIMM, teacher_ckpt=timm_file[1], head=head)
        model.init_weights()
        losses = losses_of(model, make_batch())
        own = [model.head.fc.weight, model.head.distill_fc.weight]
        for name, reached in (('loss', 0), ('loss_distill', 1)):
            grads = torch.autograd.grad(
                losses[name], own, retain_graph=True, allow_unused=True
            )
            assert grads[reached].any()
            assert grads[1 - reached] is None

    def test_head_of_mmpretrain(self, timm_file):
        head = dict(STUDENT['head'], type='LinearClsHead')
        model = build(teacher=TIMM, teacher_ckpt=timm_file[1], head=head)
        losses = losses_of(model, make_batch())
        assert set(losses) == {'loss', 'loss_distill'}


def test_teacher_is_neither_saved_nor_trained(student):
    plain = build(dict(STUDENT, type='ImageClassifier'))
    assert list(student.state_dict()) == list(plain.state_dict())
    assert len(list(student.modules())) == len(list(plain.modules()))
    average = ExponentialMovingAverage(student, update_buffers=True)
    assert set(average.module.state_dict()) == set(student.state_dict())
    assert average.module.teacher is student.teacher

    student.train()
    assert not any(m.training for m in student.teacher.model.modules())
    sum(losses_of(student, make_batch()).values()).backward()
    for parameter in student.teacher.model.parameters():
        assert not parameter.requires_grad and parameter.grad is None


def test_testing_needs_no_teacher():
    model = build(teacher_ckpt='nowhere.pth').eval()
    data = model.data_preprocessor(make_batch())
    assert len(model(**data, mode='predict')) == 4


class TestErrors:
    @pytest.mark.parametrize('path', [None, 'https://x/y.pth'])
    def test_missing_weights_stop_training(self, path):
        model = build(teacher_ckpt=path)
        with pytest.raises(FileNotFoundError, match='tresnet_v2_l.*PATH'):
            model.init_weights()

    @pytest.mark.parametrize(
        'teacher, named',
        [
            # timm would drop the classifier and go on with a random one.
            (dict(TIMM, num_classes=CLASSES + 1), 'teacher.pth does not fit'),
            (PLAIN, 'teacher.pth does not fit'),
            ({**PLAIN, 'data_preprocessor': None}, 'data_preprocessor'),
        ],
    )
    def test_teacher_that_cannot_be_used(self, teacher, named, timm_file):
        model = build(teacher=teacher, teacher_ckpt=timm_file[1])
        with pytest.raises(ValueError, match=named):
            model.init_weights()

    def test_teacher_of_other_classes(self):
        model = build()
        with pytest.raises(ValueError, match='7 classes.*student 5'):
            model.distill_loss(torch.zeros(2, CLASSES), torch.zeros(2, 7))

    def test_nothing_is_downloaded(self, timm_file, monkeypatch):
        def fetch(*args, **kwargs):
            raise AssertionError('downloads')

        monkeypatch.setattr('timm.models._builder.load_pretrained', fetch)
        teacher = dict(TIMM, pretrained=True)
        build(teacher=teacher, teacher_ckpt=timm_file[1]).init_weights()

    def test_bad_mode(self):
        with pytest.raises(ValueError, match='distill_mode.*both'):
            build(distill_mode='both')

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

from mmpretrain import get_model  # noqa: E402
from mmpretrain.models import ClsDataPreprocessor  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from mmmobilemamba.models.classifiers.distilled import Teacher  # noqa: E402

CLASSES = 5
SIDE = 64
PREPROCESSOR = dict(
    num_classes=CLASSES, mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0]
)
TIMM = dict(
    type='TimmClassifier', model_name='test_resnet', num_classes=CLASSES
)
ARCH = dict(channels=(32, 40, 48), depths=(1, 1, 1))
HEAD = dict(type='mmmobilemamba.BNLinearClsHead', num_classes=CLASSES)
HEAD.update(in_channels=48, loss=dict(type='CrossEntropyLoss'))
PLAIN = dict(
    type='ImageClassifier',
    backbone=dict(type='mmmobilemamba.MobileMamba', arch=ARCH),
    neck=dict(type='GlobalAveragePooling'),
    head=HEAD,
    data_preprocessor=dict(PREPROCESSOR, to_rgb=True),
)
STUDENT = dict(PLAIN, type='mmmobilemamba.DistilledClassifier', teacher=TIMM)


def build(config=STUDENT, **kwargs):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(deepcopy({**config, **kwargs}))


def make_batch():
    torch.manual_seed(1)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    # Coarse patches, which survive the strides of a network.
    inputs = torch.randint(256, (4, 3, 4, 4)).byte()
    return dict(inputs=F.interpolate(inputs, SIDE), data_samples=samples)


def losses_of(model, batch):
    data = model.data_preprocessor(deepcopy(batch), True)
    return model(**data, mode='loss')


@pytest.fixture(scope='module')
def timm_file(tmp_path_factory):
    """Return a timm model with weights of its own, and its file."""
    model = timm.create_model('test_resnet', num_classes=CLASSES).eval()
    nn.init.normal_(model.get_classifier().weight, std=1.0)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(model.state_dict(), path)
    return model, str(path)


def taught(timm_file, teacher=TIMM, **kwargs):
    model = build(teacher=teacher, teacher_ckpt=timm_file[1], **kwargs)
    model.init_weights()
    return model.train()


class Eye(nn.Module):
    """Keep what a teacher is shown."""

    def __init__(self, **preprocessor):
        super().__init__()
        self.data_preprocessor = ClsDataPreprocessor(**preprocessor)

    def forward(self, inputs, mode):
        self.seen = inputs
        return inputs.new_zeros(len(inputs), CLASSES)


def mix(images, scores):
    return 0.3 * images + 0.7 * images.flip(0), scores.float()


@pytest.mark.parametrize(
    'form', [dict(PREPROCESSOR, to_rgb=True), dict(num_classes=CLASSES)]
)
def test_teacher_sees_mixed_pixels_in_its_own_form(form):
    augments = dict(augments=[mix])
    model = build(data_preprocessor=dict(form, batch_augments=augments))
    eye = Eye(mean=[0.0, 100.0, 0.0], std=[255.0, 1.0, 255.0], to_rgb=False)
    model._teacher = Teacher(eye, size=(SIDE // 2, SIDE))
    batch = make_batch()
    losses_of(model, batch)

    pixels, _ = mix(batch['inputs'].float(), torch.zeros(1))  # BGR, as loaded
    pixels = F.interpolate(pixels, (SIDE // 2, SIDE), mode='bicubic')
    want = pixels / torch.tensor([255.0, 1.0, 255.0]).view(3, 1, 1)
    want[:, 1] -= 100
    torch.testing.assert_close(eye.seen, want, rtol=1e-4, atol=1e-3)


def test_timm_teacher_scores_as_timm_does(timm_file):
    pixels, own = make_batch()['inputs'].float(), timm_file[0].pretrained_cfg
    size = own['input_size'][1:]
    images = F.interpolate(pixels.flip(1) / 255, size, mode='bicubic')
    mean, std = (torch.tensor(own[k]).view(3, 1, 1) for k in ('mean', 'std'))
    with torch.no_grad():
        want = timm_file[0]((images - mean) / std)
    got = taught(timm_file).teacher(pixels)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_teacher_from_a_config_of_mmpretrain(tmp_path):
    name, path = 'resnet18_8xb32_in1k', str(tmp_path / 'teacher.pth')
    torch.save(get_model(name).state_dict(), path)
    config = f'mmpretrain::resnet/{name}.py'
    model = build(teacher=config, teacher_ckpt=path)
    batch, teacher = make_batch(), get_model(name, path)
    with torch.no_grad():
        want = teacher(teacher.data_preprocessor(batch)['inputs'])
    got = model.teacher(batch['inputs'].float())
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('mode', ['soft', 'hard'])
def test_value_of_the_loss(mode):
    model = build(distill_mode=mode, temperature=2.0)
    student, teacher = torch.randn(2, 4, CLASSES).double().unbind()
    wanted = (teacher / 2).softmax(1)
    ratio = wanted.log() - (student / 2).softmax(1).log()
    want = 4 * (wanted * ratio).sum() / 4
    if mode == 'hard':
        hit = range(4), teacher.argmax(1)
        want = -student.log_softmax(1)[hit].mean()
    torch.testing.assert_close(model.distill_loss(student, teacher), want)

    with pytest.raises(ValueError, match='distill_mode.*both'):
        build(distill_mode='both')
    with pytest.raises(ValueError, match='7 classes.*student 5'):
        model.distill_loss(torch.zeros(2, CLASSES), torch.zeros(2, 7))


def test_each_head_has_its_own_teacher(timm_file):
    head = dict(HEAD, with_distill_head=True)
    model = taught(timm_file, head=head)
    losses = losses_of(model, make_batch())
    losses['loss'].backward(retain_graph=True)
    assert model.head.fc.weight.grad.any()
    assert model.head.distill_fc.weight.grad is None
    model.zero_grad()
    losses['loss_distill'].backward()
    assert model.head.distill_fc.weight.grad.any()
    assert model.head.fc.weight.grad is None


def test_head_of_mmpretrain(timm_file):
    head = dict(HEAD, type='LinearClsHead')
    model = taught(timm_file, head=head, distill_weight=3.0)
    data = model.data_preprocessor(make_batch(), True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss', 'loss_distill'}
    wanted = model.teacher(make_batch()['inputs'].float())
    by_hand = model.distill_loss(model(data['inputs']), wanted)
    torch.testing.assert_close(losses['loss_distill'], 3 * by_hand)


def test_teacher_is_neither_saved_nor_trained(timm_file):
    student, plain = taught(timm_file), build(PLAIN)
    assert list(student.state_dict()) == list(plain.state_dict())
    average = ExponentialMovingAverage(student, update_buffers=True)
    assert average.module.teacher is student.teacher
    assert not any(m.training for m in student.teacher.model.modules())
    assert not any(p.requires_grad for p in student.teacher.model.parameters())


def test_only_training_needs_the_teacher():
    model = build(teacher_ckpt='https://x/y.pth').eval()
    data = model.data_preprocessor(make_batch())
    assert len(model(**data, mode='predict')) == 4
    with pytest.raises(FileNotFoundError, match='https://x/y.pth'):
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
def test_teacher_that_cannot_be_used(teacher, named, timm_file):
    with pytest.raises(ValueError, match=named):
        taught(timm_file, teacher)


def test_nothing_is_downloaded(timm_file, monkeypatch):
    def fetch(*args, **kwargs):
        raise AssertionError('downloads')

    monkeypatch.setattr('timm.models._builder.load_pretrained', fetch)
    taught(timm_file, dict(TIMM, pretrained=True))

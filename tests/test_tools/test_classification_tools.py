"""Packing, distilling and carrying over, as a user does it."""

import re

import pytest
import torch

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')
pytest.importorskip('lmdb')

CONFIG = """
_base_ = './cls.py'
model = dict(
    type='mmmobilemamba.DistilledClassifier',
    teacher=dict(
        type='TimmClassifier', model_name='test_resnet', num_classes=2
    ),
    teacher_ckpt='teacher.pth',
)
load = dict(
    type='LoadImageFromFile',
    backend_args=dict(backend='lmdb', db_path='packed/colours.lmdb'),
)
train_dataloader = dict(
    dataset=dict(
        data_root='',
        ann_file='packed/meta/colours.txt',
        pipeline=[load, dict(type='PackInputs')],
    )
)
custom_hooks = [
    dict(type='mmengine.EMAHook'),
    dict(type='mmmobilemamba.ThroughputHook'),
]
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture
def distilling(workspace, tmp_path, monkeypatch):
    """Give a config of a distillation, in a folder to start from."""
    text = CONFIG.replace('./cls.py', str(workspace / 'cls.py'))
    (tmp_path / 'distill.py').write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_folders_to_a_backbone(distilling, workspace, tool, capsys):
    pack = tool('dataset_converters/imagenet_to_lmdb')
    pack.main([str(workspace), 'packed', '--splits', 'colours'])
    said = capsys.readouterr().out
    assert 'packed/colours.lmdb: 8 images of 2 classes' in said

    teacher = timm.create_model('test_resnet', num_classes=2)
    torch.save(teacher.state_dict(), 'teacher.pth')
    train = tool('train')
    train.main(
        ['distill.py', '--work-dir', 'run', '--channels-last', '--amp']
        + ['--amp-dtype', 'bfloat16']
    )
    (log,) = distilling.glob('run/*/*.log')
    line = re.search(r'Epoch\(train\).*\n', log.read_text())[0]
    for word in ('loss_distill: ', 'images_per_s: '):
        assert float(line.partition(word)[2].split()[0]) > 0, line

    carry = tool('model_converters/classifier_to_backbone')
    carry.main(['run/epoch_1.pth', 'backbone.pth'])
    assert 'moving average of' in capsys.readouterr().out
    saved = torch.load('run/epoch_1.pth', weights_only=True)['state_dict']
    backbone = torch.load('backbone.pth', weights_only=True)['state_dict']
    assert len(backbone) == sum(k.startswith('backbone.') for k in saved)
    for name, value in backbone.items():
        assert torch.equal(value, saved[f'backbone.{name}']), name


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('teacher.pth', 'teacher.pth does not exist'),
        ('packed', r'packed/colours.lmdb \(train_dataloader.dataset.pipel'),
    ],
)
def test_what_is_missing_stops_a_training(
    missing, message, distilling, tool, capsys
):
    if missing != 'packed':
        (distilling / 'packed' / 'colours.lmdb').mkdir(parents=True)
        (distilling / 'packed' / 'meta').mkdir()
        (distilling / 'packed' / 'meta' / 'colours.txt').touch()
    with pytest.raises(SystemExit) as stopped:
        tool('train').main(['distill.py', '--work-dir', 'run'])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(distilling.glob('run/*.pth'))

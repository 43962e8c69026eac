"""Packing, distilling and carrying over, as a user does it."""

import re

import pytest
import torch

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')
pytest.importorskip('lmdb')

CONFIG = """
_base_ = '{base}'
model = dict(
    type='mmmobilemamba.DistilledClassifier',
    teacher=dict(
        type='TimmClassifier', model_name='test_resnet', num_classes=2),
    teacher_ckpt='teacher.pth')
lmdb = dict(backend='lmdb', db_path='packed/colours.lmdb')
train_dataloader = dict(
    dataset=dict(
        data_root='',
        ann_file='packed/meta/colours.txt',
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=lmdb),
            dict(type='PackInputs')]))
custom_hooks = [dict(type='mmengine.EMAHook')]
default_hooks = dict(logger=dict(interval=1))
"""


def test_from_folders_to_a_backbone(
    workspace, tool, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = CONFIG.format(base=workspace / 'cls.py')
    (tmp_path / 'distill.py').write_text(config)
    train = tool('train')
    with pytest.raises(SystemExit):
        train.main(['distill.py', '--work-dir', 'run'])
    assert 'packed/colours.lmdb (train_dataloader' in capsys.readouterr().err

    pack = tool('dataset_converters/imagenet_to_lmdb')
    pack.main([str(workspace), 'packed', '--splits', 'colours'])
    said = capsys.readouterr().out
    assert 'packed/colours.lmdb: 8 images of 2 classes' in said

    teacher = timm.create_model('test_resnet', num_classes=2)
    torch.save(teacher.state_dict(), 'teacher.pth')
    args = ['distill.py', '--work-dir', 'run', '--channels-last', '--amp']
    train.main([*args, '--amp-dtype', 'bfloat16'])
    (log,) = tmp_path.glob('run/*/*.log')
    line = re.search(r'Epoch\(train\).*\n', log.read_text())[0]
    assert float(line.partition('loss_distill: ')[2].split()[0]) > 0, line

    carry = tool('model_converters/classifier_to_backbone')
    carry.main(['run/epoch_1.pth', 'backbone.pth'])
    assert 'moving average of' in capsys.readouterr().out
    saved = torch.load('run/epoch_1.pth', weights_only=True)['state_dict']
    backbone = torch.load('backbone.pth', weights_only=True)['state_dict']
    assert len(backbone) == sum(k.startswith('backbone.') for k in saved)
    for name, value in backbone.items():
        assert torch.equal(value, saved[f'backbone.{name}']), name

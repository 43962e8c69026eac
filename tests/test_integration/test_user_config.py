"""A user's config trains with the host library's own, unchanged tool."""

import os
import subprocess
import sys

import pytest

mmdet = pytest.importorskip('mmdet')

DETECTOR = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='t2'),
    neck=dict(in_channels=[144, 272, 368], start_level=0),
    bbox_head=dict(
        num_classes=3, anchor_generator=dict(strides=[16, 32, 64, 128, 256])
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = (128, 128)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = (128, 128)
metainfo = dict(classes=('circle', 'rectangle', 'triangle'))
common = dict(data_root='{data}', metainfo=metainfo)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=train_pipeline,
        **common,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        pipeline=test_pipeline,
        **common,
    ),
)
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
train_cfg = dict(max_epochs=1)
"""


def test_backbone_in_a_config_outside(shapes, tmp_path):
    tool = f'{mmdet.__path__[0]}/.mim/tools/train.py'
    config = tmp_path / 'mine.py'
    config.write_text(DETECTOR.replace('{data}', str(shapes)))
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', tool, config]
        + ['--work-dir', tmp_path],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert 'Evaluating bbox' in run.stdout + run.stderr
    assert (tmp_path / 'epoch_1.pth').is_file()

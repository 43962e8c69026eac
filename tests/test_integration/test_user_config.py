"""A user's config trains with the host library's own, unchanged tool."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='{data}',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='{data}',
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
train_cfg = dict(max_epochs=1)
"""

# The neck comes with the backbone, and the command line names another one.
PYRAMID = DETECTOR.replace(
    """
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='t2'),
    neck=dict(in_channels=[144, 272, 368], start_level=0),
    bbox_head=dict(
        num_classes=3, anchor_generator=dict(strides=[16, 32, 64, 128, 256])
    ),
""",
    """
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.PyramidBackbone',
        backbone=dict(
            type='mmmobilemamba.TIMMBackbone', model_name='efficientvit_m0'
        ),
        neck=dict(
            type='mmmobilemamba.DeconvFPN',
            out_channels=256,
            out_strides=(8, 16, 32, 64, 128),
        ),
    ),
    neck=None,
    bbox_head=dict(num_classes=3),
""",
)
ANOTHER_NAME = (
    '--cfg-options',
    'model.backbone.backbone.model_name=mobilenetv2_050',
)

SEGMENTOR = """
_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'

norm_cfg = dict(type='BN')
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='t2'),
    decode_head=dict(
        in_channels=[144, 272, 368],
        in_index=[0, 1, 2],
        num_classes=4,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=dict(
        in_channels=272, in_index=1, num_classes=4, norm_cfg=norm_cfg
    ),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root='{data}',
    img_suffix='.png',
    data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
    metainfo=dict(classes=('ground', 'circle', 'rectangle', 'triangle')),
    pipeline=pipeline,
)
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dataset
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.mark.parametrize(
    'library, text, options, checkpoint, metric',
    [
        ('mmdet', DETECTOR, (), 'epoch_1.pth', 'Evaluating bbox'),
        ('mmdet', PYRAMID, ANOTHER_NAME, 'epoch_1.pth', 'Evaluating bbox'),
        ('mmseg', SEGMENTOR, (), 'iter_1.pth', 'mIoU'),
    ],
    ids=['detector', 'pyramid', 'segmentor'],
)
def test_backbone_in_a_config_outside(
    library, text, options, checkpoint, metric, shapes, tmp_path
):
    spec = importlib.util.find_spec(library)
    if spec is None:
        pytest.skip(f'{library} is not installed')
    tool = Path(spec.origin).parent / '.mim/tools/train.py'
    config = tmp_path / 'mine.py'
    config.write_text(text.replace('{data}', str(shapes)))
    command = [sys.executable, '-W', 'ignore', tool, config]
    run = subprocess.run(
        [*command, '--work-dir', tmp_path, *options],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert metric in run.stdout + run.stderr
    assert (tmp_path / checkpoint).is_file()

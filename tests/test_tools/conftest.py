"""Tiny data, tiny configs and ways to run the tools."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest

from mmmobilemamba.datasets import make_shapes

_BACKBONE = """
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.MobileMamba',
        arch=dict(channels=(32, 40, 48), depths=(1, 1, 1)),
        norm_cfg=dict(type='SyncBN'),
    ),
"""
_SCHEDULE = """
    optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
    auto_scale_lr = dict(base_batch_size=16)
    val_cfg = dict(type='ValLoop')
    test_cfg = dict(type='TestLoop')
    env_cfg = dict(mp_cfg=dict(mp_start_method='fork'))
"""
_DET = """
    _base_ = [
        'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
        'mmdet::_base_/default_runtime.py',
    ]
    root = '{root}/shapes/'
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    ]
    resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    dataset = dict(
        type='CocoDataset',
        data_root=root,
        metainfo=dict(classes=('circle', 'rectangle', 'triangle')))
    train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            type='RepeatDataset',
            times=1,
            dataset=dict(
                **dataset,
                ann_file='annotations/instances_train.json',
                data_prefix=dict(img='images/train/'),
                pipeline=[*load, resize, dict(type='PackDetInputs')])))
    val_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            **dataset,
            ann_file='annotations/instances_val.json',
            data_prefix=dict(img='images/val/'),
            test_mode=True,
            pipeline=[
                load[0], resize, load[1],
                dict(type='PackDetInputs', meta_keys=keys)]))
    test_dataloader = val_dataloader
    val_evaluator = dict(
        type='CocoMetric',
        metric=['bbox', 'segm'],
        ann_file=root + 'annotations/instances_val.json')
    test_evaluator = val_evaluator
    model = dict({backbone}
        neck=dict(in_channels=[32, 40, 48], out_channels=16, num_outs=3),
        rpn_head=dict(
            in_channels=16,
            feat_channels=16,
            anchor_generator=dict(strides=[16, 32, 64])),
        roi_head=dict(
            bbox_roi_extractor=dict(
                out_channels=16, featmap_strides=[16, 32, 64]),
            bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=3),
            mask_roi_extractor=dict(
                out_channels=16, featmap_strides=[16, 32, 64]),
            mask_head=dict(
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=3)),
        train_cfg=dict(
            rpn_proposal=dict(nms_pre=50, max_per_img=20),
            rcnn=dict(sampler=dict(num=16))),
        test_cfg=dict(
            rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(max_per_img=5)))
    train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    custom_hooks = [dict(type='EMAHook')]
"""
_SEG = """
    _base_ = [
        'mmseg::_base_/models/fpn_r50.py',
        'mmseg::_base_/default_runtime.py',
    ]
    dataset = dict(
        type='BaseSegDataset',
        data_root='{root}/shapes/',
        metainfo=dict(
            classes=('ground', 'circle', 'rectangle', 'triangle'),
            palette=[(9, 9, 9), (220, 60, 60), (60, 180, 75), (0, 0, 255)]),
        img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')])
    train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dict(
            **dataset,
            data_prefix=dict(
                img_path='images/train', seg_map_path='labels/train')))
    val_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            **dataset,
            data_prefix=dict(
                img_path='images/val', seg_map_path='labels/val')))
    test_dataloader = val_dataloader
    val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    test_evaluator = val_evaluator
    model = dict(
        pretrained=None,
        data_preprocessor=dict(size=(96, 96)), {backbone}
        neck=dict(in_channels=[32, 40, 48], out_channels=16, num_outs=3),
        decode_head=dict(
            in_channels=[16, 16, 16],
            in_index=[0, 1, 2],
            feature_strides=[16, 32, 64],
            channels=16,
            num_classes=4))
    train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    default_hooks = dict(
        logger=dict(type='LoggerHook', interval=1),
        checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
    tta_model = dict(type='SegTTAModel')
    tta_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)],
                [dict(type='LoadAnnotations')],
                [dict(type='PackSegInputs')]])]
"""
_CLS = """
    _base_ = ['mmpretrain::_base_/default_runtime.py']
    dataset = dict(
        type='CustomDataset',
        data_root='{root}/colours',
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    train_dataloader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dataset)
    val_dataloader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset)
    test_dataloader = val_dataloader
    val_evaluator = dict(type='Accuracy', topk=(1,))
    test_evaluator = val_evaluator
    model = dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=2), {backbone}
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=48))
    train_cfg = dict(by_epoch=True, max_epochs=1)
"""


@pytest.fixture(scope='package')
def workspace(tmp_path_factory):
    """A folder with data and one tiny config for each library."""
    root = tmp_path_factory.mktemp('tools')
    make_shapes(root / 'shapes', 4, 2, 96, max_object=40)
    for number, name in enumerate(('blue', 'green')):
        folder = root / 'colours' / name
        folder.mkdir(parents=True)
        for index in range(4):
            image = np.zeros((64, 64, 3), np.uint8)
            image[..., number] = 60 * index + 60
            cv2.imwrite(f'{folder}/{name}{index}.png', image)
    for name, text in (('det', _DET), ('seg', _SEG), ('cls', _CLS)):
        backbone = _BACKBONE
        if name == 'cls':
            backbone = backbone.replace('_delete_=True,', '')
            backbone = backbone.replace(
                'norm_cfg', 'out_indices=(2,), norm_cfg'
            )
        text = text + _SCHEDULE
        text = textwrap.dedent(text).format(root=root, backbone=backbone)
        (root / f'{name}.py').write_text(text)
    return root


@pytest.fixture(scope='package')
def tool(repo):
    """Give a function that imports a tool, to run its main() here."""

    def load(name):
        path = repo / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tools_{name}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='package')
def run(repo):
    """Give a function that runs a tool as a user does, in another folder."""

    def call(cwd, name, *args, **environment):
        path = str(repo / 'tools' / name)
        command = [sys.executable] if name.endswith('.py') else ['bash']
        return subprocess.run(
            [*command, path, *map(str, args)],
            cwd=cwd,
            env={
                **os.environ,
                'PYTHON': sys.executable,
                'OMP_NUM_THREADS': '1',
                **environment,
            },
            capture_output=True,
            text=True,
        )

    return call

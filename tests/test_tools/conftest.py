"""Tiny data, tiny configs and ways to run the tools."""

import importlib.util
import os
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmmobilemamba.datasets import make_shapes

CHANNELS = [32, 40, 48]
BACKBONE = dict(
    type='mmmobilemamba.MobileMamba',
    arch=dict(channels=CHANNELS, depths=(1, 1, 1)),
    norm_cfg=dict(type='SyncBN'),
)
LOAD = dict(type='LoadImageFromFile')


def dense_config(folder, model, root):
    """Return a config of the quickstart for still smaller data."""
    cfg = Config.fromfile(f'{folder}/{model}_mobilemamba-nano_shapes-160px.py')
    cfg.pop('randomness')
    cfg.param_scheduler = None
    cfg.auto_scale_lr = dict(base_batch_size=16)
    cfg.model.backbone = BACKBONE
    cfg.model.neck.in_channels = CHANNELS
    for split, size in dict(train=2, val=1, test=1).items():
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=size)
        loader.dataset.data_root = f'{root}/shapes/'
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (96, 96)
    return cfg


def detector(folder, root):
    cfg = dense_config(folder, 'mask-rcnn', root)
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=1, dataset=cfg.train_dataloader.dataset
    )
    file = f'{root}/shapes/annotations/instances_val.json'
    few = dict(nms_pre=50, max_per_img=20)
    changes = {
        'val_evaluator.ann_file': file,
        'test_evaluator.ann_file': file,
        'model.train_cfg.rpn_proposal': few,
        'model.test_cfg.rpn': few,
        'model.test_cfg.rcnn.max_per_img': 5,
        'train_cfg.max_epochs': 1,
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'custom_hooks': [dict(type='EMAHook')],
    }
    cfg.merge_from_dict(changes)
    return cfg


def segmentor(folder, root):
    cfg = dense_config(folder, 'fpn', root)
    loop = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    rest = [[dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]
    tta = dict(type='TestTimeAug', transforms=[flips, *rest])
    changes = {
        'model.data_preprocessor.size': (96, 96),
        'train_dataloader.sampler.type': 'InfiniteSampler',
        'train_cfg': dict(loop, _delete_=True),
        'log_processor.by_epoch': False,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint': dict(by_epoch=False, interval=2),
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'tta_pipeline': [LOAD, tta],
    }
    cfg.merge_from_dict(changes)
    return cfg


def classifier(folder, root):
    cfg = get_config('mmpretrain::_base_/default_runtime.py')
    dataset = dict(
        type='CustomDataset',
        data_root=f'{root}/colours',
        pipeline=[LOAD, dict(type='PackInputs')],
    )
    for split in ('train', 'val', 'test'):
        sampler = dict(type='DefaultSampler', shuffle=split == 'train')
        loader = dict(batch_size=4, num_workers=0, sampler=sampler)
        cfg[f'{split}_dataloader'] = dict(loader, dataset=dataset)
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=(1,))
    cfg.model = dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=2),
        backbone=dict(BACKBONE, out_indices=(2,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=48),
    )
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.val_cfg = cfg.test_cfg = dict()
    cfg.optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
    cfg.auto_scale_lr = dict(base_batch_size=16)
    return cfg


@pytest.fixture(scope='package')
def workspace(repo, tmp_path_factory):
    """A folder with data and one tiny config for each library."""
    root = tmp_path_factory.mktemp('tools')
    make_shapes(root / 'shapes', 4, 2, 96)
    for number, name in enumerate(('blue', 'green')):
        folder = root / 'colours' / name
        folder.mkdir(parents=True)
        for index in range(4):
            image = np.zeros((64, 64, 3), np.uint8)
            image[..., number] = 60 * index + 60
            cv2.imwrite(f'{folder}/{name}{index}.png', image)
    make_config = dict(det=detector, seg=segmentor, cls=classifier)
    for name, make in make_config.items():
        make(f'{repo}/configs/quickstart', root).dump(root / f'{name}.py')
    return root


@pytest.fixture(scope='package')
def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


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
            env=os.environ | {'PYTHON': sys.executable} | environment,
            capture_output=True,
            text=True,
        )

    return call

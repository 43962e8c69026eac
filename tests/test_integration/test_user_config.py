"""A user's config trains with the host library's own, unchanged tool."""

import subprocess
import sys

import pytest
from mmengine.config import Config

mmdet = pytest.importorskip('mmdet')


def test_backbone_in_a_config_outside(shapes, tmp_path):
    host = f'{mmdet.__path__[0]}/.mim'
    base = f'{host}/configs/retinanet/retinanet_r50_fpn_1x_coco.py'
    cfg = Config.fromfile(base)
    cfg.model.backbone = dict(type='mmmobilemamba.MobileMamba', arch='t2')
    cfg.model.neck.update(in_channels=[144, 272, 368], start_level=0)
    cfg.model.bbox_head.num_classes = 3
    cfg.model.bbox_head.anchor_generator.strides = [16, 32, 64, 128, 256]
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(shapes),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'images/{split}/'),
            metainfo=dict(classes=('circle', 'rectangle', 'triangle')),
        )
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (128, 128)
    cfg.val_evaluator.ann_file = f'{shapes}/annotations/instances_val.json'
    cfg.train_cfg.max_epochs = 1
    cfg.dump(tmp_path / 'mine.py')
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', f'{host}/tools/train.py']
        + [tmp_path / 'mine.py', '--work-dir', tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert 'Evaluating bbox' in run.stdout + run.stderr

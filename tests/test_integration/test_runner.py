"""Every config trains a step and evaluates through the real Runner."""

import math
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba.datasets import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_SEG_CLASSES,
    SHAPES_SEG_PALETTE,
)

for library in ('mmdet', 'mmseg'):
    pytest.importorskip(library)

ROOT = Path(__file__).resolve().parents[2]
# At 128 px the last stage is 2x2, so that every scan has a state to carry.
SIDE = 128
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

DETECTORS = {
    'mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco': ('bbox', 'segm'),
    'mask_rcnn/mask-rcnn_mambaout-tiny_fpn_1x_coco': ('bbox', 'segm'),
    'mask_rcnn/mask-rcnn_timm-efficientvit-m5_fpn_1x_coco': ('bbox', 'segm'),
    'retinanet/retinanet_mobilemamba-b1_fpn_1x_coco': ('bbox',),
    'ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-320px': ('bbox',),
    'faster_rcnn/faster-rcnn_mobilemamba-b1_fpn_1x_coco': ('bbox',),
}
SEGMENTORS = (
    'sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    'deeplabv3/deeplabv3_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    'pspnet/pspnet_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    'segformer/segformer_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    'upernet/upernet_mobilemamba-b4_4xb4-160k_ade20k-512x512',
    'upernet/upernet_mambaout-tiny_8xb2-160k_ade20k-512x512',
)


class Recorder(Hook):
    """Keep the losses, the gradients and the metrics of a run."""

    def before_train(self, runner):
        self.losses, self.gradients = [], {}
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    partial(self.keep, name=name)
                )

    def keep(self, parameter, name):
        self.gradients[name] = parameter.grad.norm().item()

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses.append(outputs['loss'].item())

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def walk(node):
    """Yield every dict inside a config."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from walk(child)


def reduce(name, work_dir, num_classes):
    """Cut a config down to one process, one step and small pictures."""
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.default_hooks.checkpoint = None
    cfg.visualizer.vis_backends = None
    cfg.randomness = dict(seed=0)
    for loader in LOADERS:
        cfg[loader].update(
            batch_size=2, num_workers=0, persistent_workers=False
        )
    small = dict(
        num_classes=num_classes,
        # A block that is dropped for the whole small batch has no gradient.
        drop_path_rate=0.0,
        reduce_zero_label=False,
        # An untrained network has to find something to evaluate.
        score_thr=0.0,
        # The heads of the RoIs are most of the work at this size.
        max_per_img=30,
    )
    for node in walk(cfg._cfg_dict):
        node.update({key: small[key] for key in small.keys() & node.keys()})
        kind = node.get('type')
        if kind == 'mmmobilemamba.MobileMamba':
            node['drop_path_rate'] = 0.0
        elif kind in ('Resize', 'RandomResize'):
            node['scale'] = (SIDE, SIDE)
        elif kind == 'RandomCrop':
            node['crop_size'] = (SIDE, SIDE)
        elif kind == 'RandomSampler':
            node['num'] = 64
    return cfg


def run(cfg):
    """Train and evaluate; return the recorder and the model."""
    recorder = Recorder()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.model = revert_sync_batchnorm(runner.model)
    # The published initial values silence every residual branch.
    for module in runner.model.modules():
        if isinstance(module, _BatchNorm) and not module.weight.any():
            nn.init.constant_(module.weight, 0.5)
    runner.train()
    return recorder, runner.model


def check(recorder, model, metrics):
    """Check losses, gradients and metrics."""
    assert all(map(math.isfinite, recorder.losses))
    trained = {k for k, p in model.named_parameters() if p.requires_grad}
    assert set(recorder.gradients) == trained
    for name, norm in recorder.gradients.items():
        assert math.isfinite(norm), name
        # At this size no box is as large as the neck's coarsest level wants.
        if name.startswith('backbone.') and 'backbone.neck.' not in name:
            assert norm > 0, name
    for name in metrics:
        assert 0 <= recorder.metrics[name] <= 100, name


@pytest.mark.parametrize('name', DETECTORS)
def test_detector(name, shapes, tmp_path):
    cfg = reduce(f'det/{name}', tmp_path, len(SHAPES_CLASSES))
    for loader, split in zip(LOADERS, ('train', 'val', 'val')):
        dataset = cfg[loader].dataset
        if dataset.type == 'RepeatDataset':
            dataset.times = 1
            dataset = dataset.dataset
        dataset.update(
            data_root=str(shapes),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'images/{split}/'),
            metainfo=dict(classes=SHAPES_CLASSES, palette=SHAPES_PALETTE),
        )
    ann_file = str(shapes / 'annotations/instances_val.json')
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = ann_file
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    recorder, model = run(cfg)
    assert len(recorder.losses) == 2
    check(recorder, model, [f'coco/{kind}_mAP' for kind in DETECTORS[name]])
    unread = [k for k, p in model.named_parameters() if not p.requires_grad]
    assert bool(unread) == ('ssdlite' in name)
    assert all(k.startswith('backbone.stages.2.') for k in unread)


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentor(name, shapes, tmp_path):
    cfg = reduce(f'seg/{name}', tmp_path, len(SHAPES_SEG_CLASSES))
    for loader, split in zip(LOADERS, ('train', 'val', 'val')):
        cfg[loader].dataset.update(
            type='BaseSegDataset',
            data_root=str(shapes),
            img_suffix='.png',
            data_prefix=dict(
                img_path=f'images/{split}', seg_map_path=f'labels/{split}'
            ),
            metainfo=dict(
                classes=SHAPES_SEG_CLASSES, palette=SHAPES_SEG_PALETTE
            ),
        )
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.model.data_preprocessor.size = (SIDE, SIDE)
    recorder, model = run(cfg)
    assert len(recorder.losses) == 1
    check(recorder, model, ['mIoU', 'aAcc', 'mAcc'])

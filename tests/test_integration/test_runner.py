"""Every config trains a step and evaluates through the real Runner."""

from copy import deepcopy
from pathlib import Path

import cv2
import pytest
import torch
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
    make_scene,
)

for library in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(library)

ROOT = Path(__file__).resolve().parents[2]
# At 128 px the last stage is 2x2, so that every scan has a state to carry.
SIDE = 128

DETECTORS = {
    'mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco': ('bbox', 'segm'),
    'mask_rcnn/mask-rcnn_mambaout-tiny_fpn_1x_coco': ('bbox', 'segm'),
    'mask_rcnn/mask-rcnn_timm-efficientvit-m5_fpn_1x_coco': ('bbox', 'segm'),
    'retinanet/retinanet_mobilemamba-b1_fpn_1x_coco': ('bbox',),
    'ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-320px': ('bbox',),
    'ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-512px': ('bbox',),
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

    def __init__(self):
        self.losses, self.metrics, self.gradients = [], None, {}

    def before_train(self, runner):
        def record(name):
            def keep(parameter):
                self.gradients[name] = parameter.grad.norm().item()

            return keep

        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(record(name))

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses.append(outputs)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


@pytest.fixture(scope='session')
def image_folders(tmp_path_factory):
    """Make an ImageNet-like folder: a folder of pictures per class."""
    folder = tmp_path_factory.mktemp('data') / 'folders'
    for index in range(6):
        for split in ('train', 'val'):
            path = folder / split / f'class_{index % 3}' / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            image = make_scene(index, size=SIDE, max_object=64).image
            assert cv2.imwrite(str(path), image[..., ::-1])
    return folder


def walk(node):
    """Yield every dict inside a config."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from walk(child)


def reduce(cfg, work_dir):
    """Cut a config down to one process, one step and small pictures."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.default_hooks.checkpoint = None
    cfg.visualizer.vis_backends = None
    cfg.randomness = dict(seed=0)
    # A block that is dropped for the whole small batch gets no gradient.
    for node in walk(cfg.model):
        if (
            node.get('type') == 'mmmobilemamba.MobileMamba'
            or 'drop_path_rate' in node
        ):
            node['drop_path_rate'] = 0.0
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].update(
            batch_size=2, num_workers=0, persistent_workers=False
        )
    for node in walk(cfg._cfg_dict):
        if node.get('type') in ('Resize', 'RandomResize'):
            node['scale'] = (SIDE, SIDE)
        elif node.get('type') == 'RandomCrop':
            node['crop_size'] = (SIDE, SIDE)
        elif 'reduce_zero_label' in node:
            node['reduce_zero_label'] = False
        if 'score_thr' in node:
            # An untrained network has to find something to evaluate.
            node['score_thr'] = 0.0
        # The heads of the RoIs are most of the work at this size.
        if 'max_per_img' in node:
            node['max_per_img'] = 30
        if node.get('type') == 'RandomSampler':
            node['num'] = 64
    return cfg


def run(cfg):
    """Train and evaluate; return the recorder and the model."""
    recorder = Recorder()
    cfg.custom_hooks = cfg.get('custom_hooks', [])
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
    for losses in recorder.losses:
        assert torch.isfinite(torch.as_tensor(losses['loss']))
    trained = {k for k, p in model.named_parameters() if p.requires_grad}
    assert set(recorder.gradients) == trained
    gradients = torch.tensor(list(recorder.gradients.values()))
    assert torch.isfinite(gradients).all()
    silent = {
        name
        for name, norm in recorder.gradients.items()
        if name.startswith('backbone.')
        # At this size no box is as large as the neck's coarsest level wants.
        and not name.startswith('backbone.neck.')
        and norm == 0
    }
    assert not silent
    assert set(metrics) <= set(recorder.metrics)
    for name in metrics:
        assert 0 <= recorder.metrics[name] <= 100, name


def point_at_coco(loader, shapes, split):
    """Read the embedded instances in place of COCO."""
    dataset = loader.dataset
    if dataset.type == 'RepeatDataset':
        dataset.times = 1
        dataset = dataset.dataset
    dataset.update(
        data_root=str(shapes),
        ann_file=f'annotations/instances_{split}.json',
        data_prefix=dict(img=f'images/{split}/'),
        metainfo=dict(classes=SHAPES_CLASSES, palette=SHAPES_PALETTE),
    )


@pytest.mark.parametrize('name', DETECTORS)
def test_detector(name, shapes, tmp_path):
    cfg = reduce(Config.fromfile(ROOT / f'configs/det/{name}.py'), tmp_path)
    point_at_coco(cfg.train_dataloader, shapes, 'train')
    point_at_coco(cfg.val_dataloader, shapes, 'val')
    cfg.test_dataloader = deepcopy(cfg.val_dataloader)
    ann_file = str(shapes / 'annotations/instances_val.json')
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = ann_file
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    for node in walk(cfg.model):
        if 'num_classes' in node:
            node['num_classes'] = len(SHAPES_CLASSES)

    recorder, model = run(cfg)
    assert len(recorder.losses) == 2
    metrics = [f'coco/{kind}_mAP' for kind in DETECTORS[name]]
    check(recorder, model, metrics)
    unread = [k for k, p in model.named_parameters() if not p.requires_grad]
    if 'ssdlite' in name:
        assert unread and all(
            k.startswith('backbone.stages.2.') for k in unread
        )
    else:
        assert not unread


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentor(name, shapes, tmp_path):
    cfg = reduce(Config.fromfile(ROOT / f'configs/seg/{name}.py'), tmp_path)
    for loader, split in (
        (cfg.train_dataloader, 'train'),
        (cfg.val_dataloader, 'val'),
        (cfg.test_dataloader, 'val'),
    ):
        loader.dataset.update(
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
    for node in walk(cfg.model):
        if 'num_classes' in node:
            node['num_classes'] = len(SHAPES_SEG_CLASSES)

    recorder, model = run(cfg)
    assert len(recorder.losses) == 1
    check(recorder, model, ['mIoU', 'aAcc', 'mAcc'])


@pytest.mark.parametrize(
    'name',
    [
        'mobilemamba/mobilemamba-t2_8xb128-300e_in1k-192px',
        'mobilemamba/mobilemamba-b1_8xb32_in1k',
        'mambaout/mambaout-femto_8xb512-300e_in1k-224px',
    ],
)
def test_classifier(name, image_folders, tmp_path):
    cfg = reduce(Config.fromfile(ROOT / f'configs/cls/{name}.py'), tmp_path)
    for node in walk(cfg._cfg_dict):
        if node.get('type') == 'RandomResizedCrop':
            node['scale'] = SIDE
        elif node.get('type') == 'ResizeEdge':
            node['scale'] = SIDE + 8
        elif node.get('type') == 'CenterCrop':
            node['crop_size'] = SIDE
    for loader, split in (
        (cfg.train_dataloader, 'train'),
        (cfg.val_dataloader, 'val'),
        (cfg.test_dataloader, 'val'),
    ):
        loader.dataset.pop('split')
        loader.dataset.update(
            type='CustomDataset',
            data_root=str(image_folders),
            data_prefix=split,
        )
    cfg.train_cfg.update(max_epochs=1, val_interval=1)

    recorder, model = run(cfg)
    assert len(recorder.losses) == 3
    check(recorder, model, ['accuracy/top1', 'accuracy/top5'])

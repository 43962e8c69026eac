"""Every config trains a step and evaluates through the real Runner."""

import math
from functools import partial

import pytest
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba import datasets

for library in ('mmdet', 'mmseg'):
    pytest.importorskip(library)

# At 128 px the last stage is 2x2, so that every scan has a state to carry.
SIDE = 128
SPLITS = dict(train='train', val='val', test='val')

DETECTORS = (
    'mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco',
    'mask_rcnn/mask-rcnn_mambaout-tiny_fpn_1x_coco',
    'mask_rcnn/mask-rcnn_timm-efficientvit-m5_fpn_1x_coco',
    'retinanet/retinanet_mobilemamba-b1_fpn_1x_coco',
    'ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-320px',
    'faster_rcnn/faster-rcnn_mobilemamba-b1_fpn_1x_coco',
)
SEGMENTORS = (
    'sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    'deeplabv3/deeplabv3_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    'pspnet/pspnet_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    'segformer/segformer_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    'upernet/upernet_mobilemamba-b4_4xb4-160k_ade20k-512x512',
    'upernet/upernet_mambaout-tiny_8xb2-160k_ade20k-512x512',
)


def walk(node):
    """Yield every dict inside a config."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from walk(child)


def reduce(path, work_dir, num_classes):
    """Cut a config down to one process, one step and small images."""
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    cfg.default_hooks.checkpoint = cfg.visualizer.vis_backends = None
    cfg.randomness = dict(seed=0)
    for split in SPLITS:
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    small = dict(
        num_classes=num_classes,
        # A block that is dropped for the whole small batch has no gradient.
        drop_path_rate=0.0,
        reduce_zero_label=False,
        # An untrained network has to find something to evaluate.
        score_thr=0.0,
        # The heads of the RoIs are most of the work at this size.
        max_per_img=30,
        scale=(SIDE, SIDE),
        crop_size=(SIDE, SIDE),
    )
    for node in walk(cfg._cfg_dict):
        node.update({key: small[key] for key in small.keys() & node.keys()})
        kind = node.get('type')
        if kind == 'mmmobilemamba.MobileMamba':
            node['drop_path_rate'] = 0.0
        elif kind == 'RandomSampler':
            node['num'] = 64
    return cfg


def train(cfg, steps, metrics):
    """Check the losses, gradients and metrics of a run, return its model."""
    runner = Runner.from_cfg(cfg)
    runner.model = model = revert_sync_batchnorm(runner.model)
    # The published initial values silence every residual branch.
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not module.weight.any():
            nn.init.constant_(module.weight, 0.5)
    norms = {}

    def keep(name, parameter):
        norms[name] = parameter.grad.norm().item()

    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        parameter.register_post_accumulate_grad_hook(partial(keep, name))
    runner.train()
    scalars = runner.message_hub.log_scalars
    (losses,) = scalars['train/loss'].data[:1]
    assert len(losses) == steps and all(map(math.isfinite, losses))
    assert norms.keys() == trained.keys()
    for name, norm in norms.items():
        assert math.isfinite(norm), name
        # At this size no box is as large as the neck's coarsest level wants.
        if name.startswith('backbone.') and 'backbone.neck.' not in name:
            assert norm > 0, name
    for name in metrics:
        assert 0 <= scalars[f'val/{name}'].current() <= 100, name
    return model


@pytest.mark.parametrize('name', DETECTORS)
def test_detector(name, shapes, tmp_path, repo):
    classes, palette = datasets.SHAPES_CLASSES, datasets.SHAPES_PALETTE
    path = repo / f'configs/det/{name}.py'
    cfg = reduce(path, tmp_path, len(classes))
    for loader, split in SPLITS.items():
        dataset = cfg[f'{loader}_dataloader'].dataset
        if dataset.type == 'RepeatDataset':
            dataset.times = 1
            dataset = dataset.dataset
        dataset.update(
            data_root=str(shapes),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'images/{split}/'),
            metainfo=dict(classes=classes, palette=palette),
        )
    ann_file = str(shapes / 'annotations/instances_val.json')
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = ann_file
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    kinds = ['bbox', 'segm'] if 'mask-rcnn' in name else ['bbox']
    model = train(cfg, 2, [f'coco/{kind}_mAP' for kind in kinds])
    unread = [k for k, p in model.named_parameters() if not p.requires_grad]
    assert bool(unread) == ('ssdlite' in name)
    assert all(k.startswith('backbone.stages.2.') for k in unread)


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentor(name, shapes, tmp_path, repo):
    path = repo / f'configs/seg/{name}.py'
    classes, palette = datasets.SHAPES_SEG_CLASSES, datasets.SHAPES_SEG_PALETTE
    cfg = reduce(path, tmp_path, len(classes))
    for loader, split in SPLITS.items():
        cfg[f'{loader}_dataloader'].dataset.update(
            type='BaseSegDataset',
            data_root=str(shapes),
            img_suffix='.png',
            data_prefix=dict(
                img_path=f'images/{split}', seg_map_path=f'labels/{split}'
            ),
            metainfo=dict(classes=classes, palette=palette),
        )
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.model.data_preprocessor.size = (SIDE, SIDE)
    train(cfg, 1, ['mIoU', 'aAcc', 'mAcc'])

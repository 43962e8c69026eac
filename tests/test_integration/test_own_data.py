"""The configs for data of one's own train and evaluate."""

import math
import runpy

import pytest
import torch
from mmengine.config import Config
from own_data import make_coco, make_folders, make_labels, make_voc

from mmmobilemamba.analysis.run_logs import read_run

for library in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(library)

# Config and metric.
CASES = {
    'voc': ('retinanet_mobilemamba-t2_voc-320px', 'pascal_voc/mAP'),
    'coco': ('mask-rcnn_mobilemamba-t2_coco-masks-320px', 'coco/segm_mAP'),
    'labels': ('fpn_mobilemamba-t2_label-images-240px', 'mIoU'),
    'folders': ('mobilemamba-t2_image-folders-64px', 'accuracy/top1'),
}


def reduce(kind, cfg, root, repo):
    """Let a config read little data, by a narrow network, in small images."""
    nano = dict(channels=(32, 40, 48), depths=(1, 1, 1))
    backbone = cfg.model.backbone
    if kind == 'folders':
        backbone.arch, cfg.model.head.in_channels = nano, 48
    else:
        backbone.backbone.arch = nano
    if kind == 'coco':
        tool = runpy.run_path(f'{repo}/tools/dataset_converters/split_coco.py')
        tool['split_coco'](root / 'all.json', root, val_share=0.5)
    for split, part in dict(train='train', val='val', test='val').items():
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{root}/'
        loader.dataset.indices = 4 if kind == 'folders' else 2
        if kind == 'coco':
            loader.dataset.ann_file = f'{root}/{part}.json'
            if part == 'val':
                cfg[f'{split}_evaluator'].ann_file = f'{root}/val.json'
        for step in loader.dataset.pipeline:
            if kind != 'folders' and 'scale' in step:
                step['scale'] = (112, 84)
            if kind == 'labels' and 'crop_size' in step:
                step['crop_size'] = (64, 96)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.default_hooks.logger.interval = 1


@pytest.mark.parametrize('kind', CASES)
def test_trains_and_evaluates(kind, repo, tmp_path):
    name, metric = CASES[kind]
    cfg = Config.fromfile(repo / 'configs' / 'own_data' / f'{name}.py')
    cfg.work_dir = str(tmp_path / 'run')
    root, classes = tmp_path / 'data', cfg.metainfo.classes
    if kind == 'labels':
        make_labels(root, len(classes), void=cfg.void)
    else:
        make = dict(voc=make_voc, coco=make_coco, folders=make_folders)
        make[kind](root, classes)
    reduce(kind, cfg, root, repo)
    cfg.dump(tmp_path / 'config.py')
    tool = runpy.run_path(str(repo / 'tools' / 'train.py'))
    tool['main']([str(tmp_path / 'config.py')])
    run = read_run(cfg.work_dir)
    assert len(run.train) == (4 if kind == 'folders' else 2)
    for record in run.train.values():
        # A box without area once made it infinite.
        assert math.isfinite(record['loss'])
    _, values = run.curve(metric)
    assert len(values) == 1 and 0 <= values[0] <= 100
    file = torch.load(f'{cfg.work_dir}/epoch_2.pth', weights_only=False)
    assert file['meta']['dataset_meta']['classes'] == classes


def test_void_counts_nowhere(repo):
    """Neither in the loss, nor in the metric, nor in what is padded."""
    path = repo / 'configs/own_data' / f'{CASES["labels"][0]}.py'
    cfg = Config.fromfile(path)
    for part in (cfg.model.decode_head, cfg.val_evaluator, cfg.test_evaluator):
        assert part.ignore_index == 11
    assert cfg.model.data_preprocessor.seg_pad_val == 11
    assert not cfg.train_dataloader.dataset.get('reduce_zero_label')
    assert cfg.model.decode_head.num_classes == len(cfg.metainfo.classes)

"""The checks of samples, put into any config."""

from copy import deepcopy

import pytest
from mmengine.config import Config

from mmmobilemamba.datasets.data_checks import (
    CHECKED,
    label_range,
    set_data_checks,
)
from mmmobilemamba.datasets.data_paths import find_datasets

CASES = {
    'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco': 80,
    'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512': 150,
    'cls/mobilemamba/mobilemamba-t2_8xb128-300e_in1k-192px': 1000,
}


@pytest.mark.parametrize('name', CASES)
def test_configs_run_with_checks(repo, name):
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(library)
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    before = deepcopy(cfg)
    set_data_checks(cfg, ('train', 'val'), max_faulty=7)
    for split, allowed in (('train', 7), ('val', 0)):
        (found,) = find_datasets(cfg, split)
        (old,) = find_datasets(before, split)
        (step,) = found[1].pipeline
        assert step.type == CHECKED
        assert step.max_faulty == allowed
        assert step.drop_flat_boxes == (split == 'train')
        assert step.num_classes == CASES[name]
        assert step.transforms == old[1].pipeline
    # What others read from the config that a run leaves behind.
    assert cfg.test_dataloader == before.test_dataloader
    # A second time changes nothing.
    once = deepcopy(cfg)
    set_data_checks(cfg, ('train', 'val'), max_faulty=7)
    assert cfg.train_dataloader == once.train_dataloader


def test_data_sets_below_wrappers_and_later_pipelines():
    load = dict(type='Load')
    inner = dict(type='CocoDataset', pipeline=[load])
    dataset = dict(
        type='MultiImageMixDataset',
        pipeline=[dict(type='Mosaic')],
        dataset=dict(type='ConcatDataset', datasets=[inner]),
    )
    hook = dict(type='PipelineSwitchHook', switch_pipeline=[load])
    cfg = dict(train_dataloader=dict(dataset=dataset), custom_hooks=[hook])
    cfg = Config(cfg)
    set_data_checks(cfg, ('train',))
    dataset = cfg.train_dataloader.dataset
    assert dataset.pipeline[0].type == 'Mosaic'
    assert dataset.dataset.datasets[0].pipeline[0].type == CHECKED
    assert cfg.custom_hooks[0].switch_pipeline[0].type == CHECKED


def test_heads_of_every_stage_are_read_but_proposals():
    model = dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(num_classes=4), dict(num_classes=3)]),
        decode_head=dict(num_classes=6, loss_decode=dict(num_classes=2)),
    )
    assert label_range(model) == dict(num_classes=3)
    model['decode_head']['ignore_index'] = 9
    assert label_range(model) == dict(num_classes=3, ignore_index=9)
    assert label_range({}) == {}

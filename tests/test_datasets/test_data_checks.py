"""The checks of samples, put into any config."""

from copy import deepcopy

import pytest
from mmengine.config import Config

from mmmobilemamba.datasets.data_checks import label_range, set_data_checks

CASES = {
    'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco': 80,
    'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512': 150,
    'cls/mobilemamba/mobilemamba-t2_8xb128-300e_in1k-192px': 1000,
}


@pytest.mark.parametrize('name', CASES)
def test_classes_of_configs(repo, name):
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(library)
    cfg = Config.fromfile(repo / 'configs' / f'{name}.py')
    assert label_range(cfg.model)['num_classes'] == CASES[name]


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


def test_data_sets_below_wrappers_and_later_pipelines():
    load = [dict(type='Load')]
    inner = dict(type='CocoDataset', pipeline=load)
    dataset = dict(
        type='MultiImageMixDataset',
        pipeline=[dict(type='Mosaic')],
        dataset=dict(type='ConcatDataset', datasets=[inner]),
    )
    cfg = dict(
        model=dict(head=dict(num_classes=3)),
        train_dataloader=dict(dataset=dataset),
        val_dataloader=dict(dataset=inner),
        test_dataloader=dict(dataset=inner),
        custom_hooks=[dict(type='PipelineSwitchHook', switch_pipeline=load)],
    )
    cfg = Config(deepcopy(cfg))
    set_data_checks(cfg, ('train', 'val'), max_faulty=7)
    dataset = cfg.train_dataloader.dataset
    assert dataset.pipeline[0].type == 'Mosaic'
    checked = dict(
        type='mmmobilemamba.CheckedPipeline', transforms=load, num_classes=3
    )
    train = dict(checked, max_faulty=7, drop_flat_boxes=True)
    assert dataset.dataset.datasets[0].pipeline == [train]
    # A metric is over all samples.
    val = dict(checked, max_faulty=0, drop_flat_boxes=False)
    assert cfg.val_dataloader.dataset.pipeline == [val]
    assert cfg.test_dataloader.dataset.pipeline == load
    assert cfg.custom_hooks[0].switch_pipeline == [dict(checked, max_faulty=7)]
    once = deepcopy(cfg)
    set_data_checks(cfg, ('train', 'val'), max_faulty=7)
    assert cfg.to_dict() == once.to_dict()

"""Data with faults, made one at a time, in data sets of the libraries."""

import re
from copy import deepcopy

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from own_data import coco, folders, labels
from torch.utils.data import DataLoader

from mmmobilemamba.datasets import checked_pipeline
from mmmobilemamba.datasets.checked_pipeline import DataFaultError

PACK = dict(mmdet='PackDetInputs', mmseg='PackSegInputs')
PACK.update(mmpretrain='PackInputs')
for host in PACK:
    pytest.importorskip(host)


@pytest.fixture
def build(tmp_path):
    """Give a function that builds a data set with a checked pipeline."""
    made = {}

    def call(make, **options):
        if make not in made:
            made[make] = make(tmp_path / make.__name__)
        scope, _, dataset = deepcopy(made[make])
        steps = [*dataset['pipeline'], dict(type=PACK[scope])]
        step = dict(type='mmmobilemamba.CheckedPipeline', transforms=steps)
        dataset['pipeline'] = [dict(step, **options)]
        with DefaultScope.overwrite_default_scope(scope):
            return DATASETS.build(dataset)

    return call


@pytest.fixture
def said(monkeypatch):
    """Give what goes to the log."""
    messages = []
    monkeypatch.setattr(
        checked_pipeline, 'print_log', lambda text, **_: messages.append(text)
    )
    return messages


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flatten(path):
    cv2.imwrite(str(path), np.zeros((9, 80), np.uint8))


@pytest.mark.parametrize(
    ('make', 'file', 'fault', 'words'),
    [
        # OpenCV 4 fills the lower part with grey, OpenCV 5 gives nothing.
        (coco, 'images/0.jpg', lambda p: cut(p, 0.7), 'truncated|failed to'),
        (coco, 'images/0.jpg', lambda p: p.unlink(), 'FileNotFoundError'),
        (labels, 'labels/train/0.png', flatten, r'\(64, 80\).*\(9, 80\)'),
        (labels, 'labels/train/0.png', lambda p: cut(p, 0), 'LoadAnnotations'),
    ],
)
def test_faulty_sample_is_named_and_left_out(
    build, tmp_path, said, make, file, fault, words
):
    build(make)
    fault(tmp_path / make.__name__ / file)
    dataset = build(make)
    for _ in range(3):
        np.random.seed(0)
        samples = [dataset[number] for number in range(len(dataset))]
    names = {sample['data_samples'].img_path for sample in samples}
    assert len(names) == len(dataset) - 1
    # Once, although it was met three times.
    (message,) = said
    assert re.search(rf'left out .*0\.\w+: .*({words})', message)
    assert '\n' not in message
    # Evaluation is over all samples or none.
    with pytest.raises(DataFaultError, match=r'0\.\w+: '):
        build(make, max_faulty=0)[0]


def test_label_images(build, tmp_path):
    """255 is ignored; a label without a class and 16 bits stop."""
    path = tmp_path / 'labels/labels/train/0.png'
    found = build(labels, num_classes=2)[0]['data_samples'].gt_sem_seg.data
    assert found.max() == 255
    dataset = build(labels, num_classes=2, ignore_index=0)
    with pytest.raises(DataFaultError, match=f'{path} has label 255'):
        dataset[0]
    wide = cv2.imread(str(path), -1).astype(np.uint16) + 256
    cv2.imwrite(str(path), wide)
    with pytest.raises(DataFaultError, match=f'{path} .*8 bits'):
        dataset[0]


def test_label_maps_beside_boxes_have_other_classes(build):
    """Of a panoptic network or HTC, whose num_classes is that of boxes."""
    dataset = build(labels, num_classes=1)
    sample = dataset.get_data_info(0)
    steps = dataset.pipeline.transforms[0]
    with pytest.raises(DataFaultError, match='label 1 .* 0 to 0'):
        steps(dict(sample, seg_fields=[]))
    assert steps(dict(sample, seg_fields=[], instances=[]))


def test_class_numbers_without_a_class_stop(build):
    with pytest.raises(DataFaultError, match='gt_label has label 1'):
        build(folders, num_classes=1)[2]
    with pytest.raises(DataFaultError, match='gt_bboxes_labels has label 1'):
        build(coco, num_classes=1)[0]


@pytest.mark.parametrize('box', [[5, 5, 5, 40], [5, 5, float('nan'), 40]])
@pytest.mark.parametrize(('max_faulty', 'kept'), [(50, 0), (0, 1)])
def test_boxes_without_area_of_other_formats(build, box, max_faulty, kept):
    """Of COCO's they never reach the pipeline; of Pascal VOC's they do."""
    dataset = build(coco, max_faulty=max_faulty)
    sample = dataset.get_data_info(0)
    sample['instances'].append(dict(sample['instances'][0], bbox=box))
    boxes = dataset.pipeline(sample)['data_samples'].gt_instances
    whole = len(dataset.get_data_info(0)['instances'])
    # Training goes without the box; the metric stays what it was.
    assert len(boxes) == whole + kept


def test_too_many_faults_stop(build, tmp_path):
    """Counted once over all processes and epochs, new processes in each."""
    dataset = build(folders, max_faulty=1)
    cut(tmp_path / 'folders/train/disc/0.png', 0)
    options = dict(collate_fn=list, multiprocessing_context='fork')
    loader = DataLoader(dataset, 1, num_workers=2, **options)
    for _ in range(2):
        assert len(list(loader)) == 4
    cut(tmp_path / 'folders/train/disc/1.png', 0)
    with pytest.raises(DataFaultError, match='2 samples cannot be used'):
        list(loader)


def test_heads_of_every_stage_are_read_but_proposals():
    model = dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(num_classes=4), dict(num_classes=3)]),
        decode_head=dict(num_classes=6, ignore_index=9),
    )
    assert checked_pipeline.label_range(model) == dict(
        num_classes=3, ignore_index=9
    )
    assert checked_pipeline.label_range({}) == dict(
        num_classes=None, ignore_index=255
    )


def test_data_sets_below_wrappers_and_later_pipelines():
    load = [dict(type='Load')]
    inner = dict(type='CocoDataset', pipeline=load)
    mixed = dict(
        pipeline=[dict(type='Mosaic')],
        dataset=dict(type='ConcatDataset', datasets=[inner]),
    )
    cfg = dict(
        model=dict(head=dict(num_classes=3)),
        train_dataloader=dict(dataset=mixed),
        val_dataloader=dict(dataset=inner),
        test_dataloader=dict(dataset=inner),
        custom_hooks=[dict(type='PipelineSwitchHook', switch_pipeline=load)],
    )
    cfg = Config(deepcopy(cfg))
    for _ in range(2):  # it is done once
        checked_pipeline.set_data_checks(cfg, ('train', 'val'), max_faulty=7)
    checked = dict(type='mmmobilemamba.CheckedPipeline', transforms=load)
    checked.update(num_classes=3, ignore_index=255, max_faulty=7)
    dataset = cfg.train_dataloader.dataset
    assert dataset.pipeline[0].type == 'Mosaic'
    assert dataset.dataset.datasets[0].pipeline == [checked]
    assert cfg.custom_hooks[0].switch_pipeline == [checked]
    # A metric is over all samples.
    assert cfg.val_dataloader.dataset.pipeline == [dict(checked, max_faulty=0)]
    assert cfg.test_dataloader.dataset.pipeline == load

"""Data with faults, made one at a time, in data sets of the libraries."""

import json
import re
from copy import deepcopy

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from own_data import coco, folders, labels
from torch.utils.data import DataLoader

from mmmobilemamba.datasets import DataFaultError, checked_pipeline

PACK = dict(
    mmdet='PackDetInputs', mmseg='PackSegInputs', mmpretrain='PackInputs'
)


@pytest.fixture
def build(tmp_path):
    """Give a function that builds a data set with a checked pipeline."""
    made = {}

    def call(make, **options):
        for host in PACK:
            pytest.importorskip(host)
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


def small_mask(path):
    content = json.loads(path.read_text())
    mask = dict(size=[48, 48], counts='PY1000')
    content['annotations'][0]['segmentation'] = mask
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('make', 'file', 'fault', 'words'),
    [
        # OpenCV 4 fills the lower part with grey, OpenCV 5 gives nothing.
        (coco, 'images/0.jpg', lambda p: cut(p, 0.7), 'cut off|failed to'),
        (coco, 'images/0.jpg', lambda p: p.unlink(), 'FileNotFoundError'),
        (coco, 'all.json', small_mask, '80x64.*48x48'),
        (labels, 'labels/train/0.png', lambda p: cut(p, 0), 'LoadAnn.*failed'),
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
    names = [sample['data_samples'].img_path for sample in samples]
    assert not re.search(r'\b0\.', names[0].rpartition('/')[2])
    assert len(set(names)) == len(dataset) - 1
    # Once, although it was met three times.
    (message,) = [m for m in said if 'left out' in m]
    assert re.search(rf'0\.\w+ is left out.*{words}', message)
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
    with pytest.raises(DataFaultError, match='label 255') as caught:
        dataset[0]
    assert str(path) in str(caught.value)
    wide = cv2.imread(str(path), -1).astype(np.uint16) + 256
    cv2.imwrite(str(path), wide)
    with pytest.raises(DataFaultError, match='16 or 32 bits'):
        dataset[0]


def test_label_maps_beside_boxes_have_other_classes(build):
    """Of a panoptic network or HTC, whose num_classes is that of boxes."""
    dataset = build(labels, num_classes=1)
    sample = dataset.get_data_info(0)
    steps = dataset.pipeline.transforms[0]
    with pytest.raises(DataFaultError, match='the model has 1 classes'):
        steps(dict(sample, seg_fields=[]))
    assert steps(dict(sample, seg_fields=[], instances=[]))


def test_class_numbers_without_a_class_stop(build):
    with pytest.raises(DataFaultError, match='class 1; the model has 1, so 0'):
        build(folders, num_classes=1)[2]
    with pytest.raises(DataFaultError, match=r'box \d+ has class 1'):
        build(coco, num_classes=1)[0]


def test_boxes_without_area_of_other_formats(build, said):
    """Of COCO's they never reach the pipeline; of Pascal VOC's they do."""
    counts = []
    for options in (dict(), dict(drop_flat_boxes=False)):
        dataset = build(coco, **options)
        for _ in range(2):
            sample = dataset.get_data_info(0)
            flat = dict(sample['instances'][0], bbox=[5.0, 5.0, 5.0, 40.0])
            sample['instances'].append(flat)
            boxes = dataset.pipeline(sample)['data_samples'].gt_instances
            whole = len(dataset.get_data_info(0)['instances'])
            counts.append(len(boxes) - whole)
    # Training goes without the box; the metric stays what it was.
    assert counts == [0, 0, 1, 1]
    (message,) = said
    assert '0.jpg is used without 1 of its ' in message
    assert 'has no area: x1, y1, x2, y2 = 5, 5, 5, 40' in message


def test_too_many_faults_stop(build, tmp_path, said):
    dataset = build(folders, max_faulty=2)
    paths = sorted((tmp_path / 'folders/train').glob('*/*.png'))
    for path in paths[:3]:
        path.write_bytes(b'')
    with pytest.raises(DataFaultError, match='3 samples cannot be used'):
        for _ in range(10):
            for number in range(4):
                dataset[number]
    assert len(said) == 2
    paths[3].unlink()
    with pytest.raises(DataFaultError, match='21 samples in a row cannot'):
        build(folders)[0]


def test_loading_processes_share_what_they_met(build, tmp_path):
    """Named once over all processes and epochs, new processes in each."""
    dataset = build(folders, max_faulty=1)
    cut(tmp_path / 'folders/train/disc/0.png', 0)
    options = dict(collate_fn=list, multiprocessing_context='fork')
    loader = DataLoader(dataset, 1, num_workers=2, **options)
    seen = dataset.pipeline.transforms[0]._seen
    for _ in range(2):
        assert len(list(loader)) == 4
        assert seen.nonzero().flatten().tolist() == [0]


def test_a_step_after_loading_is_no_fault_of_the_file(build):
    dataset = build(folders)

    def fail(results):
        raise ZeroDivisionError('nothing there')

    dataset.pipeline.transforms[0].transforms.insert(1, fail)
    with pytest.raises(RuntimeError, match='0.png: .*nothing there') as caught:
        dataset[0]
    assert not isinstance(caught.value, DataFaultError)

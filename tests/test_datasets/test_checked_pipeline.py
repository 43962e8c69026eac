"""Data with faults, made one at a time, in data sets of the libraries."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader

from mmmobilemamba.datasets import (
    SHAPES_CLASSES,
    SHAPES_SEG_CLASSES,
    DataFaultError,
    checked_pipeline,
    make_shapes,
)

COUNT = 6
FIRST = '000000'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(folder, COUNT, 1, 96, min_object=24, max_object=48)
    for number in range(COUNT):
        path = folder / 'images' / 'train' / f'{number:06d}.png'
        assert cv2.imwrite(
            str(path.with_suffix('.jpg')), cv2.imread(str(path))
        )
        path.unlink()
    path = folder / 'annotations' / 'instances_train.json'
    path.write_text(path.read_text().replace('.png', '.jpg'))
    return folder


@pytest.fixture
def shapes(made, tmp_path):
    return shutil.copytree(made, tmp_path / 'shapes')


@pytest.fixture
def build(shapes):
    """Give a function that builds a data set with a checked pipeline."""
    steps = dict(
        mmdet=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='PackDetInputs'),
        ],
        mmseg=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        mmpretrain=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    data = dict(
        mmdet=dict(
            type='CocoDataset',
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/train/'),
            metainfo=dict(classes=SHAPES_CLASSES),
        ),
        mmseg=dict(
            type='BaseSegDataset',
            data_prefix=dict(
                img_path='images/train', seg_map_path='labels/train'
            ),
            metainfo=dict(classes=SHAPES_SEG_CLASSES),
        ),
        mmpretrain=dict(
            type='CustomDataset',
            ann_file='list.txt',
            data_prefix='images/train',
        ),
    )

    def call(scope, dataset=None, **options):
        pytest.importorskip(scope)
        pipeline = dict(
            type='mmmobilemamba.CheckedPipeline',
            transforms=steps[scope],
            **options,
        )
        cfg = dict(data[scope], data_root=str(shapes), pipeline=[pipeline])
        cfg.update(dataset or {})
        with DefaultScope.overwrite_default_scope(scope):
            return DATASETS.build(cfg)

    names = (f'{number:06d}.jpg' for number in range(COUNT))
    (shapes / 'list.txt').write_text(''.join(f'{n} 1\n' for n in names))
    return call


@pytest.fixture
def said(monkeypatch):
    """Give what goes to the log."""
    messages = []
    monkeypatch.setattr(
        checked_pipeline, 'print_log', lambda text, **_: messages.append(text)
    )
    return messages


def edit_json(shapes, change):
    path = shapes / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def label_file(shapes):
    return shapes / 'labels' / 'train' / f'{FIRST}.png'


def write_label(shapes, change):
    path = label_file(shapes)
    cv2.imwrite(str(path), change(cv2.imread(str(path), -1)))


def cut(shapes, share):
    path = shapes / 'images' / 'train' / f'{FIRST}.jpg'
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def small_mask(content):
    first = content['annotations'][0]
    first['segmentation'] = dict(size=[48, 48], counts='PY1000')


@pytest.mark.parametrize(
    ('scope', 'fault', 'words'),
    [
        # OpenCV 4 fills the lower part with grey, OpenCV 5 gives nothing.
        ('mmpretrain', lambda s: cut(s, 0.7), ['cut off|failed to load']),
        (
            'mmdet',
            lambda s: (s / f'images/train/{FIRST}.jpg').unlink(),
            ['FileNotFoundError'],
        ),
        ('mmdet', lambda s: edit_json(s, small_mask), ['48x48.*96x96']),
        (
            'mmseg',
            lambda s: write_label(s, lambda m: m[:48, :40]),
            ['40x48.*96x96', 'labels/train'],
        ),
        (
            'mmseg',
            lambda s: label_file(s).write_bytes(b''),
            ['LoadAnnotations failed'],
        ),
    ],
    ids=[
        'cut-off',
        'missing',
        'small mask',
        'small labels',
        'empty labels',
    ],
)
def test_faulty_sample_is_named_and_left_out(
    build, shapes, said, scope, fault, words
):
    fault(shapes)
    dataset = build(scope)
    for _ in range(3):
        np.random.seed(0)
        samples = [dataset[number] for number in range(COUNT)]
    names = [s['data_samples'].img_path for s in samples]
    assert f'{FIRST}.jpg' not in names[0]
    assert [int(n[-10:-4]) for n in names[1:]] == list(range(1, COUNT))
    # Once, although it was met three times.
    (message,) = [m for m in said if 'left out' in m]
    assert f'{FIRST}.jpg is left out' in message
    assert '\n' not in message
    for word in words:
        assert re.search(word, message)

    # Evaluation is over all samples or none.
    with pytest.raises(DataFaultError, match=f'{FIRST}.jpg: '):
        build(scope, max_faulty=0)[0]


def test_ignored_pixels_are_allowed(build, shapes):
    write_label(shapes, lambda m: np.where(m == 0, 255, m).astype(np.uint8))
    labels = build('mmseg', num_classes=4)[0]['data_samples'].gt_sem_seg.data
    assert labels.max() == 255
    dataset = build('mmseg', num_classes=4, ignore_index=0)
    with pytest.raises(DataFaultError, match='label 255') as caught:
        dataset[0]
    assert str(label_file(shapes)) in str(caught.value)
    write_label(shapes, lambda m: m.astype(np.uint16) + 256)
    with pytest.raises(DataFaultError, match='16 or 32 bits'):
        dataset[0]


def test_label_maps_beside_boxes_have_other_classes(build, shapes):
    """Of a panoptic network or HTC, whose num_classes is that of boxes."""
    dataset = build('mmseg', num_classes=2)
    sample = dataset.get_data_info(0)
    steps = dataset.pipeline.transforms[0]
    with pytest.raises(DataFaultError, match='the model has 2 classes'):
        steps(dict(sample, seg_fields=[]))
    assert steps(dict(sample, seg_fields=[], instances=[]))


def test_class_numbers_without_a_class_stop(build, shapes):
    with pytest.raises(DataFaultError, match='class 1; the model has 1, so 0'):
        build('mmpretrain', num_classes=1)[0]
    dataset = build('mmdet', num_classes=1)
    with pytest.raises(DataFaultError, match=r'box \d+ has class [12]'):
        for number in range(COUNT):
            dataset[number]


def test_boxes_without_area_of_other_formats(build, said):
    """Of COCO's they never reach the pipeline; of Pascal VOC's they do."""
    counts = []
    for options in (dict(), dict(drop_flat_boxes=False)):
        dataset = build('mmdet', **options)
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
    assert f'{FIRST}.jpg is used without 1 of its ' in message
    assert 'has no area: x1, y1, x2, y2 = 5, 5, 5, 40' in message


def test_too_many_faults_stop(build, shapes, said):
    for number in range(4):
        (shapes / 'images' / 'train' / f'{number:06d}.jpg').write_bytes(b'')
    dataset = build('mmpretrain', max_faulty=3)
    np.random.seed(0)
    with pytest.raises(DataFaultError, match='4 samples cannot be used'):
        for _ in range(10):
            for number in range(COUNT):
                dataset[number]
    assert len(said) == 3
    shutil.rmtree(shapes / 'images')
    with pytest.raises(DataFaultError, match='21 samples in a row cannot'):
        build('mmpretrain')[0]


def test_loading_processes_share_what_they_met(build, shapes, said):
    """Named once over all processes and epochs, new processes in each."""
    cut(shapes, 0)
    loader = DataLoader(
        build('mmpretrain', max_faulty=1),
        batch_size=1,
        num_workers=2,
        collate_fn=list,
        multiprocessing_context='fork',
    )
    seen = loader.dataset.pipeline.transforms[0]._seen
    for _ in range(2):
        assert len(list(loader)) == COUNT
        assert seen.nonzero().flatten().tolist() == [0]


def test_a_step_after_loading_is_no_fault_of_the_file(build):
    dataset = build('mmpretrain')

    def fail(results):
        raise ZeroDivisionError('nothing there')

    dataset.pipeline.transforms[0].transforms.insert(1, fail)
    with pytest.raises(RuntimeError, match='nothing there') as caught:
        dataset[0]
    assert f'{FIRST}.jpg: ' in str(caught.value)
    assert not isinstance(caught.value, DataFaultError)

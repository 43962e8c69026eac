"""Every fault that check_dataset is for, made one at a time."""

import json
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from own_data import CLASSES, coco, folders, labels, make_coco, voc
from PIL import Image

from mmmobilemamba.datasets.audit import audit, one_class_faults


def run(case, **splits):
    """Return the reports of a case, here in this process."""
    scope, cfg, dataset = case
    for host in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(host)
    for split, changes in (splits or {'train': {}}).items():
        cfg[f'{split}_dataloader'] = dict(dataset=dict(dataset, **changes))
    with DefaultScope.overwrite_default_scope(scope):
        return list(audit(Config(cfg), tuple(splits or ['train'])))


def edit(root, change):
    path = root / 'all.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first(key, **values):
    """Give a change of the first entry of a list; None takes away."""

    def change(content):
        for name, value in values.items():
            content[key][0][name] = value
            if value is None:
                del content[key][0][name]

    return change


def text(path, old, new):
    changed = path.read_text().replace(old, new)
    assert changed != path.read_text()
    path.write_text(changed)


def repaint(root, change, kind='labels', number=None):
    for path in sorted(root.glob(f'{kind}/train/*'))[:number]:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        cv2.imwrite(str(path.with_suffix('.png')), change(image))


def turn(path, orientation):
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)


def dark(image):
    return image.astype(np.uint16) * 10


@pytest.mark.parametrize('make', [coco, voc, labels, folders])
def test_whole_data_has_no_fault(make, tmp_path):
    (report,) = run(make(tmp_path / 'data'))
    assert report.faults == []
    assert report.total > 0 and report.objects[1] > 0
    # As the newer style of configs has it, and below wrappers.
    scope, cfg, dataset = make(tmp_path / 'again')
    registry = __import__(f'{scope}.registry', fromlist=['']).DATASETS
    dataset['type'] = registry.get(dataset['type'])
    wrapped = dict(type='RepeatDataset', times=2, dataset=dataset)
    wrapped = dict(type='ConcatDataset', datasets=[wrapped, dataset])
    for report in run((scope, cfg, wrapped)):
        assert report.faults == [] and report.objects[1] > 0


ANNOTATION = 'annotation 1 of 0.jpg'
COCO = [
    ('images', dict(id=None), r'entry 0 .*id'),
    ('images', dict(height='64'), "entry 0 .*height '64'"),
    ('images', dict(file_name=None), 'images without file_name'),
    ('images', dict(id=1), 'images with the id of another'),
    ('images', dict(width=70), 'image is 80x64, the annotations are for 70'),
    ('categories', dict(name=7), 'categories with a wrong name'),
    ('categories', dict(name='Disc'), 'names disc, which .*all.json'),
    ('categories', dict(id=9), f'unknown categories, first {ANNOTATION}'),
    ('annotations', dict(id=None), 'annotations without id'),
    ('annotations', dict(id=0), r'annotations with a wrong id.*\b0'),
    ('annotations', dict(id='1'), 'annotations with a wrong id'),
    ('annotations', dict(id=2), 'annotations with the id of another'),
    ('annotations', dict(image_id=8), 'unknown images.*image_id 8'),
    ('annotations', dict(image_id='0'), "unknown images.*image_id '0'"),
    ('annotations', dict(iscrowd=None), 'annotations without iscrowd'),
    ('annotations', dict(iscrowd='no'), "iscrowd 'no'"),
    ('annotations', dict(area=None), 'annotations without area'),
    ('annotations', dict(area='5'), "area '5'"),
    ('annotations', dict(bbox=[1, 2, 3]), r'bbox \[1, 2, 3\]'),
    ('annotations', dict(bbox=[1, 2, 'a', 4]), 'wrong bbox'),
    ('annotations', dict(bbox=[1, 2, 9, 0.5]), f'without area.*{ANNOTATION}'),
    ('annotations', dict(bbox=[90, 2, 9, 9]), f'outside.*{ANNOTATION}'),
    ('annotations', dict(bbox=[1, 2, float('nan'), 4]), 'nan'),
    ('annotations', dict(segmentation=None), 'without a mask'),
    ('annotations', dict(segmentation=dict(size=9)), 'masks of another size'),
    ('annotations', dict(image_id=[0]), r'wrong image_id.*\[0\]'),
    ('annotations', dict(segmentation=[[1, 1, 9, 9]]), f'three.*{ANNOTATION}'),
    (
        'annotations',
        dict(segmentation=dict(size=[9, 9], counts='1')),
        f'masks of another size.*{ANNOTATION}',
    ),
]


@pytest.mark.parametrize(('key', 'values', 'words'), COCO)
def test_entries_of_coco(key, values, words, tmp_path):
    case = coco(tmp_path)
    edit(tmp_path, first(key, **values))
    (report,) = run(case)
    said = [f'{path} {what}' for path, what in report.faults]
    assert any(re.search(words, line) for line in said), said
    assert all('.json' in line or '.jpg' in line for line in said[:1])


@pytest.mark.parametrize('content', ['', '[]', '{', '{"images": 3}', 'null'])
def test_files_that_are_none_of_coco(content, tmp_path):
    case = coco(tmp_path)
    (tmp_path / 'all.json').write_text(content)
    (report,) = run(case)
    assert 'all.json' in report.faults[0][1]


def test_right_uses_are_remarks(tmp_path):
    """A test set without annotations, and one without its own classes."""
    case = coco(tmp_path)
    edit(tmp_path, lambda c: c.pop('annotations'))
    (report,) = run(case)
    assert report.faults == []
    assert any('2 of 2 images' in remark for remark in report.remarks)
    case[2].pop('metainfo')
    (report,) = run(case)
    assert 'names person' in report.faults[0][1]


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('<width>80', '<width>80.0', "width is '80.0'"),
        ('<xmin>8<', '<xmin>eight<', "xmin of object 0 is 'eight'"),
        ('<xmin>8</xmin>', '', "xmin of object 0 is ''"),
        (
            '<object><name>ring</name>',
            '<object><name>ring</name><difficult>Unspecified</difficult>',
            "difficult of object 1 is 'Unspecified'",
        ),
        ('</annotation>', '', 'cannot be read'),
        ('ring', 'Ring', '1 classes of metainfo never occur: ring'),
    ],
)
def test_files_of_voc(old, new, words, tmp_path):
    case = voc(tmp_path)
    for name in ('photo_0', 'photo_2'):
        text(tmp_path / f'Annotations/{name}.xml', old, new)
    (report,) = run(case)
    said = ' '.join(f'{path}: {what}' for path, what in report.faults)
    assert re.search(words, said), said
    assert 'never' in words or 'photo_0.xml' in said
    if 'never' in words:
        assert "2 objects named 'Ring'" in ' '.join(report.remarks)


@pytest.mark.parametrize(
    ('change', 'options', 'words'),
    [
        (lambda m: np.where(m == 1, 255, m), {}, '0 and 255 only'),
        (lambda m: np.where(m == 1, 0, m), {}, 'never occur: ring'),
        (
            lambda m: m * 0,
            dict(reduce_zero_label=True),
            'every pixel is 255.*reduce_zero_label',
        ),
        (lambda m: np.where(m == 1, 4, m), {}, 'label 4 at row 8, column 40'),
        (lambda m: np.stack([m] * 3, -1), {}, '3 channels'),
        (lambda m: m[:9], {}, '80x9, the image 80x64'),
    ],
)
def test_label_images(change, options, words, tmp_path):
    case = labels(tmp_path)
    repaint(tmp_path, lambda m: change(m).astype(np.uint8))
    (report,) = run(case, train=options)
    said = ' '.join(f'{path}: {what}' for path, what in report.faults)
    assert re.search(words, said), said
    assert 'Error' not in said


def test_images_that_are_dark_or_turned(tmp_path):
    case = labels(tmp_path)
    repaint(tmp_path, dark, 'images', 1)
    turn(tmp_path / 'images/train/1.jpg', 3)
    (report,) = run(case, train=dict(img_suffix='.png'))
    assert [path[-5:] for path, _ in report.faults] == ['0.png']
    assert 'more than 8 bits' in report.faults[0][1]
    (report,) = run(case)
    assert [path[-5:] for path, _ in report.faults] == ['1.jpg']
    assert 'EXIF orientation 3' in report.faults[0][1]


def test_folders_and_their_classes(tmp_path):
    case = folders(tmp_path)
    (report,) = run(case, train=dict(metainfo=dict(classes=CLASSES[::-1])))
    assert "('disc', 'ring')" in report.faults[0][1]
    (tmp_path / 'test' / 'ring').rename(tmp_path / 'test' / 'square')
    _, report = run(case, train={}, val=dict(data_prefix='test'))
    assert 'ring, square' in ' '.join(what for _, what in report.faults)
    # A number that MMPretrain asserts ends in no traceback.
    (report,) = run(case, train=dict(metainfo=dict(classes=('a', 'b', 'c'))))
    assert 'AssertionError' in report.faults[0][1]


def test_parts_of_a_set_may_lack_classes(tmp_path):
    """Each has some of them, and one has no labels at all."""
    case = coco(tmp_path)
    for name, left in (('a', 1), ('b', 2), ('none', 0)):
        edit(
            tmp_path,
            lambda c, left=left: c.update(
                annotations=[
                    x for x in c['annotations'] if x['category_id'] == left
                ]
            ),
        )
        (tmp_path / 'all.json').rename(tmp_path / f'{name}.json')
        make_coco(tmp_path, CLASSES, 2)
    scope, cfg, dataset = case
    parts = [dict(dataset, ann_file=f'{n}.json') for n in ('a', 'b', 'none')]
    together = dict(type='ConcatDataset', datasets=parts)
    assert [r.faults for r in run((scope, cfg, together))] == [[], [], []]
    together = dict(type='ConcatDataset', datasets=parts[:1])
    (report,) = run((scope, cfg, together))
    assert 'never occur: ring' in report.faults[0][1]


def test_files_that_cannot_be_read(tmp_path):
    (report,) = run(labels(tmp_path / 'b'), train=dict(img_suffix='.tif'))
    assert 'no sample' in report.faults[0][1]
    case = folders(tmp_path)
    (tmp_path / 'train/disc/0.png').write_bytes(b'')
    path = tmp_path / 'train/disc/1.png'
    path.write_bytes(path.read_bytes()[:-100])
    (report,) = run(case)
    assert {path[-10:] for path, _ in report.faults if path} == {
        'disc/0.png',
        'disc/1.png',
    }
    assert report.samples == {1: 2}


@pytest.mark.parametrize(
    ('model', 'faulty'),
    [
        (dict(decode_head=dict(num_classes=1)), True),
        (
            dict(head=dict(num_classes=1, loss=dict(type='LabelSmoothLoss'))),
            True,
        ),
        (dict(decode_head=dict(num_classes=2, out_channels=1)), False),
        (dict(bbox_head=dict(num_classes=1)), False),
        (
            dict(
                auxiliary_head=[
                    dict(num_classes=1, loss_decode=[dict(use_sigmoid=True)])
                ]
            ),
            False,
        ),
    ],
)
def test_one_class_under_a_softmax(model, faulty):
    assert bool(one_class_faults(model)) == faulty


def test_classes_as_a_string(tmp_path):
    (report,) = run(coco(tmp_path), train=dict(metainfo=dict(classes='disc')))
    assert "('disc',), with a comma" in report.faults[0][1]

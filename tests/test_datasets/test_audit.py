"""Every fault that check_dataset is for, made one at a time."""

import json
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from own_data import CLASSES, coco, folders, labels, voc
from PIL import Image

from mmmobilemamba.datasets.audit import audit, one_class_faults

for host in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(host)


def run(case, **splits):
    """Return the reports of a case, here in this process."""
    scope, cfg, dataset = case
    for split, changes in (splits or {'train': {}}).items():
        cfg[f'{split}_dataloader'] = dict(dataset=dict(dataset, **changes))
    with DefaultScope.overwrite_default_scope(scope):
        return list(audit(Config(cfg), tuple(splits or ['train'])))


def told(report):
    return '\n'.join(f'{path}: {what}' for path, what in report.faults)


def edit(root, key, values):
    """Change the first entry of a list; None takes away."""
    path = root / 'all.json'
    content = json.loads(path.read_text())
    entry = {**content[key][0], **values}
    content[key][0] = {k: v for k, v in entry.items() if v is not None}
    path.write_text(json.dumps(content))


def repaint(root, change, kind='labels', number=None):
    for path in sorted(root.glob(f'{kind}/train/*'))[:number]:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        cv2.imwrite(str(path.with_suffix('.png')), change(image))


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
    ('images', dict(id=1), 'images with the id of another'),
    ('images', dict(width=70), 'image is 80x64, the annotations are for 70'),
    ('categories', dict(name='Disc'), 'names disc, which .*all.json'),
    ('categories', dict(id=9), f'unknown categories, first {ANNOTATION}'),
    ('annotations', dict(id=0), r'annotations with a wrong id.*\b0'),
    ('annotations', dict(id=2), 'annotations with the id of another'),
    ('annotations', dict(image_id=8), 'unknown images.*image_id 8'),
    ('annotations', dict(iscrowd=None), 'annotations without iscrowd'),
    ('annotations', dict(area='5'), "area '5'"),
    ('annotations', dict(bbox=[1, 2, 3]), r'bbox \[1, 2, 3\]'),
    ('annotations', dict(bbox=[1, 2, 9, 0.5]), f'without area.*{ANNOTATION}'),
    ('annotations', dict(bbox=[90, 2, 9, 9]), f'outside.*{ANNOTATION}'),
    ('annotations', dict(bbox=[1, 2, float('nan'), 4]), 'nan'),
    ('annotations', dict(segmentation=None), 'without a mask'),
    ('annotations', dict(segmentation=dict(size=9)), 'masks of another size'),
    ('annotations', dict(segmentation=[[1, 1, 9, 9]]), f'three.*{ANNOTATION}'),
]


@pytest.mark.parametrize(('key', 'values', 'words'), COCO)
def test_entries_of_coco(key, values, words, tmp_path):
    case = coco(tmp_path)
    edit(tmp_path, key, values)
    (report,) = run(case)
    assert re.search(words, told(report)), told(report)
    assert re.search('[.](json|jpg)', told(report).partition('\n')[0])


@pytest.mark.parametrize('content', ['', '[]', '{"images": 3}'])
def test_files_that_are_none_of_coco(content, tmp_path):
    case = coco(tmp_path)
    (tmp_path / 'all.json').write_text(content)
    (report,) = run(case)
    assert 'all.json' in report.faults[0][1]


def test_right_uses_are_remarks(tmp_path):
    """A test set without annotations; but not classes of another set."""
    case = coco(tmp_path)
    content = json.loads((tmp_path / 'all.json').read_text())
    del content['annotations']
    (tmp_path / 'all.json').write_text(json.dumps(content))
    (report,) = run(case)
    assert report.faults == []
    assert any('2 of 2 images' in remark for remark in report.remarks)
    case[2].pop('metainfo')
    (report,) = run(case)
    assert 'names person' in report.faults[0][1]
    (report,) = run(case, train=dict(metainfo=dict(classes='disc')))
    assert "('disc',), with a comma" in report.faults[0][1]


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('<width>80', '<width>80.0', "width is '80.0'"),
        ('<xmin>8<', '<xmin>eight<', "xmin of object 0 is 'eight'"),
        ('</annotation>', '', 'cannot be read'),
        ('ring', 'Ring', '1 classes of metainfo never occur: ring'),
    ],
)
def test_files_of_voc(old, new, words, tmp_path):
    case = voc(tmp_path)
    for name in ('photo_0', 'photo_2'):
        path = tmp_path / f'Annotations/{name}.xml'
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))
    (report,) = run(case)
    assert re.search(words, told(report)), told(report)
    assert 'never' in words or 'photo_0.xml' in told(report)
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
    assert re.search(words, told(report)), told(report)
    assert 'Error' not in told(report)


def test_images_that_are_dark_or_turned(tmp_path):
    case = labels(tmp_path)
    repaint(tmp_path, lambda i: i.astype(np.uint16) * 10, 'images', 1)
    path = tmp_path / 'images/train/1.jpg'
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 3
        image.save(path, exif=exif)
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
    content = json.loads((tmp_path / 'all.json').read_text())
    whole = content['annotations']
    for name, left in (('a', 1), ('b', 2), ('none', 0)):
        found = [x for x in whole if x['category_id'] == left]
        content['annotations'] = found
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
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
    names = {path[-10:] for path, _ in report.faults if path}
    assert names == {'disc/0.png', 'disc/1.png'}
    assert report.samples == {1: 2}


SMOOTH = 'LabelSmoothLoss'


@pytest.mark.parametrize(
    ('model', 'faulty'),
    [
        (dict(decode_head=dict(num_classes=1)), True),
        (dict(head=dict(num_classes=1, loss=dict(type=SMOOTH))), True),
        (dict(decode_head=dict(num_classes=2, out_channels=1)), False),
        (dict(bbox_head=dict(num_classes=1)), False),
    ],
)
def test_one_class_under_a_softmax(model, faulty):
    assert bool(one_class_faults(model)) == faulty

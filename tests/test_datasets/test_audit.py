"""Every fault that check_dataset is for, made one at a time."""

import json
import re
import runpy

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from own_data import CLASSES, coco, folders, labels, voc
from PIL import Image

from mmmobilemamba.datasets.audit import audit

for host in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(host)


def run(case, **splits):
    """Return the reports of a case, here in this process."""
    scope, cfg, dataset = case
    for split, changes in (splits or {'train': {}}).items():
        cfg[f'{split}_dataloader'] = dict(dataset=dict(dataset, **changes))
    with DefaultScope.overwrite_default_scope(scope):
        return list(audit(Config(cfg), tuple(splits or ['train'])))


def told(case, **splits):
    """Return the faults of the last report."""
    faults = run(case, **splits)[-1].faults
    return '\n'.join(f'{path}: {what}' for path, what in faults)


def repaint(root, paint, kind='labels', number=None):
    for path in sorted(root.glob(f'{kind}/train/*'))[:number]:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        cv2.imwrite(str(path.with_suffix('.png')), paint(image))


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


FIRST = r'all.json: annotations\[0\] has'
MASK = dict(size=[64, 80], counts=[5, 5])
COCO = [
    ('images', dict(id=None), r'images\[0\] has no id'),
    ('images', dict(height='64'), r'images\[0\] has a wrong .*height'),
    ('images', dict(id=1), r'images\[1\] has the id of another'),
    ('images', dict(file_name='1.jpg'), r'images\[1\] has the file of .* 0'),
    ('images', dict(width=70), r'\(64, 80\), .* \(64, 70\)'),
    ('categories', dict(name='Disc'), 'all.json: .*differs in disc .*Disc'),
    ('categories', dict(name=5), r'categories\[0\] has a name .* no text'),
    ('categories', dict(id=9), f'{FIRST} an unknown .*category_id'),
    ('annotations', dict(id=0), f'{FIRST} the id 0'),
    ('annotations', dict(id=2), r'annotations\[1\] has the id of another'),
    ('annotations', dict(id=2**70), f'{FIRST} an id, .*no number'),
    ('annotations', dict(image_id=8), f'{FIRST} an unknown image_id'),
    ('annotations', dict(iscrowd=None), f'{FIRST} no iscrowd'),
    ('annotations', dict(iscrowd=True), f'{FIRST} .*iscrowd'),
    ('annotations', dict(area='5'), f"{FIRST} .*area.*'5'"),
    ('annotations', dict(bbox=[1, 2, 3]), f'{FIRST} .*four'),
    ('annotations', dict(bbox=[1, 2, 9, 0.5]), f'{FIRST} a box without area'),
    ('annotations', dict(bbox=[90, 2, 9, 9]), f'{FIRST} .*outside of 0.jpg'),
    ('annotations', dict(bbox=[1, 2, float('nan'), 4]), f'{FIRST} .*nan'),
    ('annotations', dict(segmentation=None), f'{FIRST} no mask'),
    ('annotations', dict(segmentation=dict(size=9)), f'{FIRST} .*counts'),
    ('annotations', dict(segmentation=[[1, 1, 9, 9]]), f'{FIRST} .*three'),
    ('annotations', dict(segmentation=[[3e6] * 6]), '0.jpg: .* polygon'),
    ('annotations', dict(segmentation=MASK), f'{FIRST} .*another size'),
]


@pytest.mark.parametrize(('key', 'values', 'words'), COCO)
def test_entries_of_coco(key, values, words, tmp_path):
    case = coco(tmp_path)
    path = tmp_path / 'all.json'
    content = json.loads(path.read_text())
    content[key][0].update(values)
    path.write_text(json.dumps(content))
    assert re.search(words, told(case))


@pytest.mark.parametrize('content', ['', '[]', '{"images": 3}'])
def test_files_that_are_none_of_coco(content, tmp_path):
    case = coco(tmp_path)
    (tmp_path / 'all.json').write_text(content)
    assert 'all.json' in told(case)


def test_right_uses_are_no_faults(tmp_path, monkeypatch):
    """A test set without annotations; but not classes of another set."""
    case = coco(tmp_path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 9)  # OpenCV reads more
    path = tmp_path / 'all.json'
    path.write_text(path.read_text().replace('annotations', 'others'))
    (report,) = run(case)
    assert report.faults == []
    assert report.samples[None] == 4
    case[2].pop('metainfo')
    assert 'differs in person' in told(case)


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('<width>80', '<width>80.0', "invalid literal.*'80.0'"),
        ('<xmin>8<', '<xmin>eight<', "could not convert.*'eight'"),
        ('</annotation>', '', 'ParseError: no element'),
    ],
)
def test_files_of_voc(old, new, words, tmp_path):
    case = voc(tmp_path)
    path = tmp_path / 'Annotations/photo_0.xml'
    path.write_text(path.read_text().replace(old, new))
    (report,) = run(case)
    # The other file is read all the same.
    assert report.total == report.samples[0] == 1
    (fault,) = report.faults
    assert fault[0] == str(path) and re.search(words, fault[1])


def test_objects_that_the_spelling_leaves_out(tmp_path):
    case, path = voc(tmp_path), tmp_path / 'Annotations/photo_0.xml'
    assert told(case, train=dict(metainfo=dict(classes=('ring',)))) == ''
    assert "['disc', 'ring']" in told(case, train=dict(metainfo=None))
    path.write_text(path.read_text().replace('disc', 'Disc '))
    assert "named ['Disc ']" in told(case)


REDUCE = dict(reduce_zero_label=True)


@pytest.mark.parametrize(
    ('paint', 'options', 'words'),
    [
        (lambda m: np.where(m == 1, 255, m), {}, r'hold \[0, 255\] alone'),
        (lambda m: np.where(m == 1, 0, m), {}, 'never occur: .*ring'),
        (lambda m: m, dict(img_suffix='.tif'), 'no sample is found'),
        (lambda m: m, dict(metainfo=dict(classes='0')), 'one is'),
        (lambda m: m, dict(metainfo=dict(classes=['disc'])), 'have no name'),
        (lambda m: m * 0, REDUCE, r'hold \[255\] alone.*reduce_zero_label'),
    ],
)
def test_label_images(paint, options, words, tmp_path):
    case = labels(tmp_path)
    repaint(tmp_path, lambda m: paint(m).astype(np.uint8))
    assert re.search(words, told(case, train=options))


def test_images_that_are_dark_or_turned(tmp_path):
    case = labels(tmp_path)
    for path in tmp_path.glob('labels/train/*'):
        Image.open(path).save(path.with_suffix('.jpg'))
    assert 'is a JPEG' in told(case, train=dict(seg_map_suffix='.jpg'))
    repaint(tmp_path, lambda i: i.astype(np.uint16) * 10, 'images', 1)
    path = tmp_path / 'images/train/1.jpg'
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path, exif=exif)
    for suffix, words in ('.png', 'more than 8 bits'), ('.jpg', 'EXIF'):
        ((path, what),) = run(case, train=dict(img_suffix=suffix))[0].faults
        assert path.endswith(suffix) and words in what


def test_folders_and_their_classes(tmp_path):
    case = folders(tmp_path)
    for turned in (CLASSES[::-1], ('Ring', 'Disc')):
        turned = dict(metainfo=dict(classes=turned))
        assert "folders are ('disc', 'ring')" in told(case, train=turned)
    (tmp_path / 'train/disc/x.webp').touch()
    assert "{'.webp'} are left out" in told(case)
    (tmp_path / 'a.txt').write_text('disc/0.png')
    assert 'a.txt: ValueError' in told(case, train=dict(ann_file='a.txt'))
    # A number that MMPretrain asserts ends in no traceback.
    more = dict(metainfo=dict(classes=('a', 'b', 'c')))
    assert 'AssertionError' in told(case, train=more)
    (tmp_path / 'test' / 'ring').rename(tmp_path / 'test' / 'square')
    case[2].pop('metainfo')
    said = told(case, train={}, val=dict(data_prefix='test'))
    assert "('disc', 'square')" in said


def test_parts_of_a_set_may_lack_classes(tmp_path):
    """Each has some of them, and one has no labels at all."""
    scope, cfg, dataset = coco(tmp_path)
    content = json.loads((tmp_path / 'all.json').read_text())
    whole = content['annotations']
    for name, left in (('a', 1), ('b', 2), ('none', 0)):
        found = [x for x in whole if x['category_id'] == left]
        text = json.dumps(dict(content, annotations=found))
        (tmp_path / f'{name}.json').write_text(text)
    parts = [dict(dataset, ann_file=f'{n}.json') for n in ('a', 'b', 'none')]
    together = dict(type='ConcatDataset', datasets=parts)
    assert [r.faults for r in run((scope, cfg, together))] == [[], [], []]
    assert 'never occur: ' in told((scope, cfg, parts[0]))


@pytest.mark.parametrize(
    ('key', 'head', 'faulty'),
    [
        ('decode_head', dict(num_classes=1), True),
        ('head', dict(num_classes=1, loss=dict(type='LabelSmoothLoss')), True),
        ('decode_head', dict(num_classes=2, out_channels=1), False),
        ('bbox_head', dict(num_classes=1), False),
    ],
)
def test_one_class_under_a_softmax(key, head, faulty, repo):
    tool = runpy.run_path(str(repo / 'tools/misc/check_dataset.py'))
    assert bool([*tool['one_class_faults']({key: head})]) == faulty

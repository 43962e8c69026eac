"""Train on data with faults, and with loading processes that end."""

import csv
import json
import os
import re
import shutil
import signal
import time

import cv2
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmmobilemamba.checkpoints.checkpoint import read_checkpoint
from mmmobilemamba.datasets.data_checks import check_annotations

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmcv._ext', reason='mmcv has no operators')


@pytest.fixture
def faulty(workspace, tmp_path):
    """A copy of the workspace, to be broken."""
    root = tmp_path / 'faulty'
    shutil.copytree(
        workspace, root, ignore=shutil.ignore_patterns('*.pth', 'work_dirs')
    )
    for name in ('det', 'seg', 'cls'):
        path = root / f'{name}.py'
        path.write_text(path.read_text().replace(str(workspace), str(root)))
    return root


@pytest.fixture
def train(tool, faulty, tmp_path):
    """Give a function that trains and returns the log."""

    def call(name, *args):
        work_dir = tmp_path / 'run'
        config = str(faulty / f'{name}.py')
        args = ['--work-dir', str(work_dir), *map(str, args)]
        tool('train').main([config, *args])
        return max(work_dir.glob('*/*.log')).read_text()

    return call


@pytest.fixture
def refuse(train, capfd):
    """Give a function that trains in vain and returns the last line."""

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            train(*args)
        assert ended.value.code == 2
        return capfd.readouterr().err.rstrip().rpartition('\n')[2]

    return call


def edit_json(root, change):
    path = root / 'shapes' / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


PICTURES = dict(
    det='shapes/images/train/000001.png',
    seg='shapes/images/train/000001.png',
    cls='colours/blue/blue1.png',
)
# A process of its own loads the data of one of them.
WORKERS = dict(det=0, seg=1, cls=0)
NO_EVALUATION = ('val_dataloader=None', 'val_cfg=None', 'val_evaluator=None')


@pytest.mark.parametrize('name', PICTURES)
def test_trains_without_a_broken_picture(name, faulty, train):
    path = faulty / PICTURES[name]
    path.write_bytes(path.read_bytes()[:-100])
    options = [f'train_dataloader.num_workers={WORKERS[name]}']
    options += ['randomness.seed=0', *NO_EVALUATION]
    log = train(name, '--cfg-options', *options)
    named = re.findall(rf'WARNING - {path} is left out.*', log)
    assert len(named) == 1
    assert re.search(r'Saving checkpoint', log)


def test_evaluation_needs_every_picture(faulty, refuse):
    path = faulty / 'shapes/images/val/000001.png'
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refuse('seg')


def test_label_without_a_class_from_a_loading_process(faulty, refuse):
    path = faulty / 'shapes/labels/train/000002.png'
    labels = cv2.imread(str(path), -1)
    labels[0, 3] = 4
    cv2.imwrite(str(path), labels)
    said = refuse('seg', '--cfg-options', 'train_dataloader.num_workers=1')
    assert f'label image {path} has label 4 at row 0, column 3' in said
    assert 'the model has 4 classes, so 0 to 3' in said


def test_no_picture_allowed(faulty, refuse):
    path = faulty / PICTURES['cls']
    path.write_bytes(b'')
    assert str(path) in refuse('cls', '--max-faulty', 0)


def unknown_category(content):
    content['annotations'][1]['category_id'] = 9


def other_order(content):
    content['categories'].reverse()


def other_name(content):
    content['categories'][0]['name'] = 'Circle'


def nothing(content):
    content['annotations'] = []


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            unknown_category,
            r'1 unknown categories, first annotation 2 of 0000',
        ),
        (other_order, r"\('triangle', 'rectangle', 'circle'\)"),
        (other_name, 'names circle, which .* does not have'),
        (nothing, 'has no usable box'),
    ],
)
def test_annotations_that_would_teach_nonsense(faulty, change, words):
    """Before the training, as the next test shows."""
    edit_json(faulty, change)
    cfg = Config.fromfile(faulty / 'det.py')
    with pytest.raises(ValueError, match=words) as caught:
        check_annotations(cfg, ('train', 'val'))
    assert 'instances_train.json' in str(caught.value)


def test_empty_annotation_file(faulty, refuse):
    path = faulty / 'shapes/annotations/instances_train.json'
    path.write_text('')
    assert f'{path} is empty' in refuse('det')


def test_boxes_without_area_are_named_once(faulty, train):
    def flatten(content):
        for annotation in content['annotations'][:2]:
            annotation['bbox'][2] = 0

    edit_json(faulty, flatten)
    log = train('det', '--cfg-options', *NO_EVALUATION)
    named = re.findall('WARNING - .*boxes without area.*', log)
    assert len(named) == 1
    assert re.search(
        r'2 boxes without area, first annotation 1 of 000000.png', named[0]
    )


@pytest.mark.parametrize('kept', [False, True])
def test_picture_without_objects(faulty, train, kept):
    """It is background where the config keeps it, and no fault."""

    def clear(content):
        first = content['images'][0]['id']
        content['annotations'] = [
            annotation
            for annotation in content['annotations']
            if annotation['image_id'] != first
        ]

    edit_json(faulty, clear)
    key = 'train_dataloader.dataset.dataset.filter_cfg.filter_empty_gt'
    log = train('det', '--cfg-options', f'{key}={kept}', *NO_EVALUATION)
    assert 'left out' not in log
    assert not re.search('loss: (nan|inf)', log)
    assert re.search('Saving checkpoint', log)


def test_pictures_of_another_suffix(refuse):
    key = 'train_dataloader.dataset.img_suffix'
    said = refuse('seg', '--cfg-options', f'{key}=.tif')
    assert "no file that ends in '.tif'" in said


def test_fewer_classes_in_a_head(refuse):
    key = 'model.roi_head.mask_head.num_classes'
    said = refuse('det', '--cfg-options', f'{key}=2')
    assert f'has 3 classes (circle, rectangle, triangle), {key} is 2' in said


class _EndWorker:
    """Let a loading process end in its second epoch."""

    def __init__(self, how):
        self.how, self.count = how, 0

    def __call__(self, results):
        self.count += 1
        if self.count > 8:
            if self.how == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == 'exit':
                os._exit(3)
            time.sleep(1000)
        return results


@pytest.fixture
def end_worker():
    """Register the step above while a test runs."""
    TRANSFORMS.register_module(name='EndWorker', module=_EndWorker)
    yield
    del TRANSFORMS._module_dict['EndWorker']


_ENDING = """
_base_ = './cls.py'
steps = [
    dict(type='LoadImageFromFile'),
    dict(type='mmengine.EndWorker', how='{how}'),
    dict(type='PackInputs')]
train_dataloader = dict(
    num_workers=1, timeout={timeout}, dataset=dict(pipeline=steps))
train_cfg = dict(max_epochs=2)
val_dataloader = val_cfg = val_evaluator = None
"""


@pytest.mark.parametrize(
    ('how', 'timeout', 'words'),
    [
        ('kill', 0, 'killed by signal|exited unexpectedly'),
        ('exit', 0, 'exited unexpectedly'),
        ('hang', 2, 'timed out after 2 seconds'),
    ],
)
def test_loading_process_that_ends(
    faulty, train, refuse, end_worker, tmp_path, how, timeout, words
):
    (faulty / 'ending.py').write_text(_ENDING.format(how=how, timeout=timeout))
    said = refuse('ending')
    assert 'DataLoader' in said
    assert re.search(words, said)
    assert '--resume' in said
    # What was written stays, and the training can go on from it.
    assert read_checkpoint(tmp_path / 'run/epoch_1.pth')['meta']['epoch'] == 1
    if how == 'kill':
        train('ending', '--resume')
        last = read_checkpoint(tmp_path / 'run/epoch_2.pth')
        assert last['meta']['iter'] == 4


def check(tool, capsys, *args):
    status = tool('misc/check_dataset').main(list(map(str, args)))
    return status, capsys.readouterr().out


@pytest.mark.parametrize('name', PICTURES)
def test_audit_finds_nothing_in_whole_data(name, faulty, tool, capsys):
    status, said = check(tool, capsys, faulty / f'{name}.py', '--workers', 0)
    assert status == 0
    assert 'No faults found' in said
    counts = dict(det='triangle', seg='ground', cls='green')
    assert re.search(rf'{counts[name]} +\d+ +\d+', said)


def test_audit_lists_every_fault(faulty, tool, capsys, tmp_path):
    """The training stops at the first wrong label; this does not."""
    labels = faulty / 'shapes/labels/train'
    for number in (0, 2):
        path = labels / f'00000{number}.png'
        cv2.imwrite(str(path), cv2.imread(str(path), -1) + 4)
    (faulty / PICTURES['seg']).write_bytes(b'')
    out = tmp_path / 'faults.csv'
    args = [faulty / 'seg.py', '--splits', 'train', '--out', out]
    status, said = check(tool, capsys, *args)
    assert status == 1
    assert 'Faults: 3' in said
    rows = list(csv.reader(out.read_text().splitlines()))
    assert [row[1][-10:] for row in rows[1:]] == [
        '000000.png',
        '000001.png',
        '000002.png',
    ]
    assert 'has label' in rows[1][2]
    assert 'LoadImageFromFile failed' in rows[2][2]


def test_audit_of_annotations(faulty, tool, capsys):
    edit_json(faulty, unknown_category)
    (faulty / PICTURES['det']).unlink()
    args = [faulty / 'det.py', '--splits', 'train', '--workers', 0]
    status, said = check(tool, capsys, *args)
    assert status == 1
    assert 'category_id 9' in said
    assert f"No such file or directory: '{faulty / PICTURES['det']}'" in said


def test_audit_of_an_empty_file(faulty, tool, capsys):
    path = faulty / 'shapes/annotations/instances_train.json'
    path.write_text('')
    args = [faulty / 'det.py', '--splits', 'train', '--workers', 0]
    status, said = check(tool, capsys, *args)
    assert status == 1
    assert f'{path} is empty' in said

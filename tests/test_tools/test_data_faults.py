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
from mmengine.registry import TRANSFORMS

from mmmobilemamba.checkpoints.checkpoint import read_checkpoint

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


IMAGES = dict(
    det='shapes/images/train/000001.png',
    seg='shapes/images/train/000001.png',
    cls='colours/blue/blue1.png',
)
# A process of its own loads the data of one of them.
WORKERS = dict(det=0, seg=1, cls=0)
NO_EVALUATION = ('val_dataloader=None', 'val_cfg=None', 'val_evaluator=None')


@pytest.mark.parametrize('name', IMAGES)
def test_trains_without_a_broken_image(name, faulty, train):
    path = faulty / IMAGES[name]
    path.write_bytes(path.read_bytes()[:-100])
    options = [f'train_dataloader.num_workers={WORKERS[name]}']
    options += ['randomness.seed=0', *NO_EVALUATION]
    log = train(name, '--cfg-options', *options)
    named = re.findall(rf'WARNING - .*left out .*: {path}: .*', log)
    assert len(named) == 1
    assert re.search(r'Saving checkpoint', log)


def test_evaluation_needs_every_image(faulty, refuse):
    path = faulty / 'shapes/images/val/000001.png'
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refuse('seg')


def test_label_without_a_class_from_a_loading_process(faulty, refuse):
    path = faulty / 'shapes/labels/train/000002.png'
    labels = cv2.imread(str(path), -1)
    labels[0, 3] = 4
    cv2.imwrite(str(path), labels)
    said = refuse('seg', '--cfg-options', 'train_dataloader.num_workers=1')
    assert f'{path} has label 4 at (0, 3)' in said
    assert 'classes 0 to 3' in said


def test_image_without_objects(faulty, train):
    """It is background where the config keeps it, and no fault."""
    path = faulty / 'shapes' / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    first = content['images'][0]['id']
    objects = content['annotations']
    content['annotations'] = [x for x in objects if x['image_id'] != first]
    path.write_text(json.dumps(content))
    key = 'train_dataloader.dataset.dataset.filter_cfg.filter_empty_gt'
    log = train('det', '--cfg-options', f'{key}=False', *NO_EVALUATION)
    assert not re.search('left out|loss: (nan|inf)', log)
    assert 'Saving checkpoint' in log


@TRANSFORMS.register_module()
class EndWorker:
    """Let a loading process end in its second epoch."""

    def __init__(self, how):
        self.how, self.count = how, 0

    def __call__(self, results):
        self.count += 1
        if self.count > 8:
            if self.how == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1000)
        return results


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
        ('hang', 2, 'timed out after 2 seconds'),
    ],
)
def test_loading_process_that_ends(
    faulty, train, refuse, tmp_path, how, timeout, words
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


def test_check_lists_every_fault(faulty, tool, capsys, tmp_path):
    """The training stops at the first wrong label; this does not."""
    main = tool('misc/check_dataset').main
    config, out = str(faulty / 'seg.py'), tmp_path / 'faults.csv'
    assert main([config, '--workers', '0']) == 0
    said = capsys.readouterr().out
    assert 'No faults found' in said and re.search(r'ground +\d+ +\d+', said)
    labels = faulty / 'shapes/labels/train'
    for number in (0, 2):
        path = labels / f'00000{number}.png'
        cv2.imwrite(str(path), cv2.imread(str(path), -1) + 4)
    (faulty / IMAGES['seg']).write_bytes(b'')
    assert main([config, '--splits', 'train', '--out', str(out)]) == 1
    rows = list(csv.reader(out.read_text().splitlines()))[1:]
    names = [row[1][-10:] for row in rows[:3]]
    assert names == [f'00000{number}.png' for number in range(3)]
    assert f'Faults: {len(rows)}' in capsys.readouterr().out
    assert 'has label' in rows[0][2]
    assert 'LoadImageFromFile' in rows[1][2]

"""Train on data with faults, and with loading processes that end."""

import csv
import os
import re
import shutil
import signal
import time

import cv2
import pytest
from mmengine.registry import TRANSFORMS

from mmmobilemamba.checkpoints.checkpoint import read_checkpoint

for library in ('mmdet', 'mmseg', 'mmpretrain', 'mmcv._ext'):
    pytest.importorskip(library)


@pytest.fixture
def faulty(workspace, tmp_path):
    """A copy of the workspace, to be broken."""
    root = tmp_path / 'faulty'
    left = shutil.ignore_patterns('*.pth', 'work_dirs')
    shutil.copytree(workspace, root, ignore=left)
    for path in root.glob('*.py'):
        path.write_text(path.read_text().replace(str(workspace), str(root)))
    return root


@pytest.fixture
def train(tool, faulty, tmp_path):
    """Give a function that trains and returns the log."""

    def call(name, *args):
        args = [faulty / f'{name}.py', '--work-dir', tmp_path / 'run', *args]
        tool('train').main([*map(str, args)])
        return max(tmp_path.glob('run/*/*.log')).read_text()

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


IMAGE = 'shapes/images/train/000001.png'
NO_EVALUATION = ('val_dataloader=None', 'val_cfg=None', 'val_evaluator=None')


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_trains_without_a_broken_image(name, faulty, train):
    path = faulty / ('colours/blue/blue1.png' if name == 'cls' else IMAGE)
    path.write_bytes(path.read_bytes()[:-100])
    # A process of its own loads the data of one of them.
    workers = f'train_dataloader.num_workers={int(name == "seg")}'
    log = train(name, '--cfg-options', workers, *NO_EVALUATION)
    assert len(re.findall(rf'WARNING - .*left out .*: {path}: .*', log)) == 1
    assert 'Saving checkpoint' in log


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


def test_image_without_objects(faulty, train):
    """It is background where the config keeps it, and no fault."""
    path = faulty / 'shapes/annotations/instances_train.json'
    path.write_text(path.read_text().replace('"image_id": 1', '"image_id": 2'))
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
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
steps = [load, dict(type='mmengine.EndWorker', how='{how}'), pack]
train_dataloader = dict(
    num_workers=1, timeout={timeout}, dataset=dict(pipeline=steps))
train_cfg = dict(max_epochs=2)
val_dataloader = val_cfg = val_evaluator = None
"""


@pytest.mark.parametrize(
    ('how', 'timeout', 'words'),
    [('kill', 0, 'killed|exited'), ('hang', 2, 'timed out after 2 seconds')],
)
def test_loading_process_that_ends(how, timeout, words, faulty, train, refuse):
    (faulty / 'ending.py').write_text(_ENDING.format(how=how, timeout=timeout))
    assert re.search(f'DataLoader .*({words}).*--resume', refuse('ending'))
    # What was written stays, and the training can go on from it.
    run = faulty.parent / 'run'
    assert read_checkpoint(run / 'epoch_1.pth')['meta']['epoch'] == 1
    if how == 'kill':
        train('ending', '--resume')
        assert read_checkpoint(run / 'epoch_2.pth')['meta']['iter'] == 4


def test_check_lists_every_fault(faulty, tool, capsys, tmp_path):
    """The training stops at the first wrong label; this does not."""
    main = tool('misc/check_dataset').main
    config, out = str(faulty / 'seg.py'), tmp_path / 'faults.csv'
    assert main([config, '--workers', '0']) == 0
    assert re.search(r'ground +\d+ +\d+', capsys.readouterr().out)
    labels = faulty / 'shapes/labels/train'
    for number in (0, 2):
        path = labels / f'00000{number}.png'
        cv2.imwrite(str(path), cv2.imread(str(path), -1) + 4)
    (faulty / IMAGE).write_bytes(b'')
    assert main([config, '--splits', 'train', '--out', str(out)]) == 1
    rows = list(csv.reader(out.read_text().splitlines()))[1:]
    for number, what in enumerate(['label', 'LoadImageFromFile', 'label']):
        assert rows[number][1].endswith(f'{number}.png')
        assert what in rows[number][2]
    assert f'Faults: {len(rows)}' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([config, '--splits', 'val', '--cfg-options', 'val_dataloader='])

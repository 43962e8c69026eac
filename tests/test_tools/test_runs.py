"""Train, resume, evaluate and draw with tiny networks of each library.

Each process of its own costs seconds of importing, so only the first run of
train.py and dist_train.sh are such; what follows calls main() here.
"""

import pickle
import re

import cv2
import pytest
import torch

from mmmobilemamba.checkpoints.checkpoint import read_checkpoint

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmcv._ext', reason='mmcv has no operators')


def read_log(work_dir):
    """The log of the latest run."""
    return max(work_dir.glob('*/*.log')).read_text()


@pytest.fixture(scope='module')
def det(workspace, run):
    """A detector after one epoch in bf16, by a process of its own."""
    result = run(workspace, 'train.py', 'det.py', '--amp', '--auto-scale-lr')
    assert result.returncode == 0, result.stderr[-4000:]
    return workspace / 'work_dirs' / 'det'


@pytest.fixture(scope='module')
def seg(workspace, run, free_port):
    """A segmentor that two gloo processes trained."""
    if torch.cuda.is_available():
        pytest.skip('with a GPU the processes are joined by NCCL')
    args = ('dist_train.sh', 'seg.py', 2, '--work-dir', 'seg run')
    result = run(workspace, *args, PORT=free_port)
    assert result.returncode == 0, result.stderr[-4000:]
    return workspace / 'seg run'


@pytest.fixture(scope='module')
def cls(workspace, tool):
    work_dir = workspace / 'cls_run'
    config = workspace / 'cls.py'
    tool('train').main([str(config), '--work-dir', str(work_dir)])
    return work_dir


def test_train_in_mixed_precision_with_scaled_rate(det):
    log = read_log(det)
    # A batch of 2 instead of 16.
    assert 'Scaling the original LR by 0.125' in log
    assert re.search(r"type='(AmpO|mmmobilemamba.CPUAmpO)ptimWrapper'", log)
    assert re.search(r'Epoch\(train\).*loss: \d', log)
    assert re.search(r'coco/segm_mAP: \d', log)
    checkpoint = read_checkpoint(det / 'epoch_1.pth')
    rate = checkpoint['optimizer']['param_groups'][0]['lr']
    assert rate == pytest.approx(1e-3 * 0.125)
    types = {value.dtype for value in checkpoint['state_dict'].values()}
    assert torch.bfloat16 not in types


def test_resume_goes_on(det, workspace, tool):
    args = [str(workspace / 'det.py'), '--work-dir', str(det), '--resume']
    more = ['--cfg-options', 'train_cfg.max_epochs=2']
    tool('train').main([*args, *more])
    checkpoint = read_checkpoint(det / 'epoch_2.pth')
    assert checkpoint['meta']['epoch'] == 2
    # Two iterations were done before, two now.
    assert checkpoint['meta']['iter'] == 4
    assert 'resumed epoch: 1, iter: 2' in read_log(det)


def test_two_processes_share_the_training(seg):
    log = read_log(seg)
    assert 'GPU number: 2' in log
    assert re.search(r'Iter\(val\) .*mIoU: \d', log)
    # SyncBN of the config ran as BatchNorm, and every rank took part.
    assert (seg / 'iter_2.pth').is_file()


@pytest.mark.parametrize(
    ('name', 'out', 'count', 'metric'),
    [
        ('det', 'found.pkl', 2, 'coco/bbox_mAP'),
        ('seg', 'labels', 2, 'mIoU'),
        ('cls', 'found.pkl', 8, 'accuracy/top1'),
    ],
)
def test_evaluates_writes_and_draws(
    name, out, count, metric, workspace, tool, tmp_path, monkeypatch, request
):
    work_dir = request.getfixturevalue(name)
    monkeypatch.chdir(tmp_path)
    args = [workspace / f'{name}.py', min(work_dir.glob('*.pth'))]
    args += ['--out', out, '--show-dir', 'drawn']
    tool('test').main(list(map(str, args)))
    drawn = sorted((tmp_path / 'drawn').rglob('*.png'))
    assert len(drawn) == count
    assert metric in read_log(tmp_path / 'work_dirs' / name)
    if name == 'seg':
        labels = sorted((tmp_path / 'labels').iterdir())
        assert [path.name for path in labels] == ['000000.png', '000001.png']
        label = cv2.imread(str(labels[0]), cv2.IMREAD_UNCHANGED)
        assert label.shape == (96, 96) and label.max() < 4
    else:
        predictions = pickle.loads((tmp_path / out).read_bytes())
        assert len(predictions) == count
    if name == 'det':
        assert 'masks' in predictions[0]['pred_instances']


def test_two_processes_evaluate(seg, workspace, run, tmp_path, free_port):
    args = ('dist_test.sh', workspace / 'seg.py', seg / 'iter_2.pth', 2)
    result = run(tmp_path, *args, PORT=free_port)
    assert result.returncode == 0, result.stderr[-4000:]
    log = read_log(tmp_path / 'work_dirs' / 'seg')
    assert re.search(r'Iter\(test\) .*mIoU: \d', log)
    assert not (tmp_path / '.dist_test').exists()


# MMDetection cannot merge masks.
BOXES_ONLY = (
    '--allow-partial',
    '--cfg-options',
    'model.roi_head.mask_head=None',
    'model.roi_head.mask_roi_extractor=None',
    'test_evaluator.metric=bbox',
)


@pytest.mark.parametrize(
    ('name', 'args', 'wrapper'),
    [
        ('det', BOXES_ONLY, 'DetTTAModel'),
        ('seg', (), 'SegTTAModel'),
        ('cls', (), 'AverageClsScoreTTA'),
    ],
)
def test_test_time_augmentation(
    name, args, wrapper, workspace, tool, tmp_path, monkeypatch, request
):
    work_dir = request.getfixturevalue(name)
    checkpoint = min(work_dir.glob('*.pth'))
    monkeypatch.chdir(tmp_path)
    config = workspace / f'{name}.py'
    tool('test').main([str(config), str(checkpoint), '--tta', *args])
    log = read_log(tmp_path / 'work_dirs' / name)
    assert f"type='{wrapper}'" in log
    assert re.search(r'(test).* (coco/bbox_mAP|mIoU|accuracy/top1): \d', log)


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_demo_draws(name, workspace, tool, tmp_path, request, capsys):
    work_dir = request.getfixturevalue(name)
    image = workspace / 'shapes' / 'images' / 'val' / '000000.png'
    args = [image, workspace / f'{name}.py', min(work_dir.glob('*.pth'))]
    args += ['--out-dir', tmp_path / 'out', '--device', 'cpu', '--deploy']
    tool('image_demo').main([*map(str, args), '--score-thr', '0'])
    assert str(tmp_path / 'out' / '000000.png') in capsys.readouterr().out
    drawn = cv2.imread(str(tmp_path / 'out' / '000000.png'))
    assert (drawn != cv2.imread(str(image))).any()


def test_demo_takes_a_folder_and_skips_what_is_no_image(
    cls, workspace, tool, tmp_path, capsys
):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'broken.png').write_text('no pixels')
    image = (workspace / 'colours' / 'blue' / 'blue1.png').read_bytes()
    (folder / 'good.png').write_bytes(image)
    args = [folder, workspace / 'cls.py', cls / 'epoch_1.pth']
    args += ['--out-dir', tmp_path / 'out', '--device', 'cpu']
    tool('image_demo').main(list(map(str, args)))
    assert 'skipped: ' in capsys.readouterr().out
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['good.png']

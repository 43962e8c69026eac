"""Train, resume, evaluate and draw with tiny networks of each library."""

import json
import pickle
import re

import cv2
import numpy as np
import pytest
import torch

from mmmobilemamba.apis.inference import read_image
from mmmobilemamba.checkpoints.checkpoint import read_checkpoint

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmcv._ext', reason='mmcv has no operators')
cuda = torch.cuda.is_available()
METRIC = r'\(test\).* (coco/bbox_mAP|mIoU|accuracy/top1): \d'


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
    if cuda:
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


@pytest.fixture(params=['det', 'seg', 'cls'])
def trained(request, workspace, tmp_path, monkeypatch):
    """Give name, config and checkpoint of each, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    checkpoint = min(request.getfixturevalue(request.param).glob('*.pth'))
    config = workspace / f'{request.param}.py'
    return request.param, str(config), str(checkpoint)


def test_train_in_mixed_precision_with_scaled_rate(det):
    log = read_log(det)
    # A batch of 2 instead of 16.
    assert 'Scaling the original LR by 0.125' in log
    assert re.search(r"type='(AmpO|mmmobilemamba.CPUAmpO)ptimWrapper'", log)
    assert re.search(r'coco/segm_mAP: \d', log)
    state = read_checkpoint(det / 'epoch_1.pth')['state_dict']
    assert torch.bfloat16 not in {value.dtype for value in state.values()}


def test_two_processes_train_and_evaluate(
    seg, workspace, run, tmp_path, free_port
):
    log = read_log(seg)
    assert 'GPU number: 2' in log
    assert re.search(r'Iter\(val\) .*mIoU: \d', log)
    # SyncBN of the config ran as BatchNorm, and every rank took part.
    args = ('dist_test.sh', workspace / 'seg.py', seg / 'iter_2.pth', 2)
    result = run(tmp_path, *args, PORT=free_port)
    assert result.returncode == 0, result.stderr[-4000:]
    log = read_log(tmp_path / 'work_dirs' / 'seg')
    assert re.search(r'Iter\(test\) .*mIoU: \d', log)
    assert not (tmp_path / '.dist_test').exists()


def test_evaluates_writes_and_draws(trained, tool, tmp_path):
    name, *paths = trained
    tool('test').main([*paths, '--out', 'found.pkl', '--show-dir', 'drawn'])
    count = 8 if name == 'cls' else 2
    assert len(list((tmp_path / 'drawn').rglob('*.png'))) == count
    assert re.search(METRIC, read_log(tmp_path / 'work_dirs' / name))
    if name == 'seg':
        label = cv2.imread('found.pkl/000001.png', cv2.IMREAD_UNCHANGED)
        assert label.shape == (96, 96) and label.max() < 4
        return
    predictions = pickle.loads((tmp_path / 'found.pkl').read_bytes())
    assert len(predictions) == count
    assert name == 'cls' or 'masks' in predictions[0]['pred_instances']


def test_images_without_annotations(det, workspace, tool, tmp_path):
    """As of COCO's test-dev: predictions are written, nothing is measured."""
    file = workspace / 'shapes/annotations/instances_val.json'
    content = json.loads(file.read_text())
    del content['annotations']
    (tmp_path / 'dev.json').write_text(json.dumps(content))
    options = [
        f'test_dataloader.dataset.ann_file={tmp_path}/dev.json',
        f'test_evaluator.ann_file={tmp_path}/dev.json',
        f'test_evaluator.outfile_prefix={tmp_path}/found',
        'test_evaluator.format_only=True',
    ]
    paths = [str(workspace / 'det.py'), str(det / 'epoch_1.pth')]
    tool('test').main([*paths, '--cfg-options', *options])
    found = json.loads((tmp_path / 'found.segm.json').read_text())
    images = {image['id'] for image in content['images']}
    assert found and {mask['image_id'] for mask in found} <= images


# MMDetection cannot merge masks.
BOXES_ONLY = '--allow-partial --cfg-options test_evaluator.metric=bbox'.split()
BOXES_ONLY += ['model.roi_head.mask_head=None']
BOXES_ONLY += ['model.roi_head.mask_roi_extractor=None']
TTA = dict(det='DetTTAModel', seg='SegTTAModel', cls='AverageClsScoreTTA')


def test_test_time_augmentation(trained, tool, tmp_path):
    name, *paths = trained
    more = BOXES_ONLY if name == 'det' else []
    tool('test').main([*paths, '--tta', *more])
    log = read_log(tmp_path / 'work_dirs' / name)
    assert f"type='{TTA[name]}'" in log
    assert re.search(METRIC, log)


def test_demo_draws_a_folder_and_skips_what_is_no_image(
    trained, workspace, tool, tmp_path, capsys
):
    _, *paths = trained
    image = workspace / 'shapes' / 'images' / 'val' / '000000.png'
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'broken.png').write_text('no pixels')
    (tmp_path / 'in' / 'caf\udce9.png').write_bytes(image.read_bytes())
    cv2.imwrite('in/narrow.png', np.zeros((2, 9000, 3), np.uint8))
    args = ['in', *paths, '--out-dir', 'out', '--device', 'cpu', '--deploy']
    tool('image_demo').main([*args, '--score-thr', '0'])
    assert capsys.readouterr().out.count('skipped: ') == 2
    (drawn,) = (tmp_path / 'out').iterdir()
    assert (read_image(drawn) != read_image(image)).any()


FLEXIBLE = '--cfg-options runner_type=FlexibleRunner'.split()
FLEXIBLE += ['strategy.type=SingleDeviceStrategy']


def test_flexible_runner(workspace, tool, tmp_path, monkeypatch):
    """mmengine's other runner trains, resumes and tests."""
    monkeypatch.chdir(tmp_path)
    args = [str(workspace / 'cls.py'), '--work-dir', 'run']
    tool('train').main([*args, *FLEXIBLE])
    more = ['--resume', *FLEXIBLE, 'train_cfg.max_epochs=2']
    tool('train').main([*args, *more])
    assert 'resumed epoch: 1, iter: 2' in read_log(tmp_path / 'run')
    # The same weights in mmengine's usual one.
    last = tmp_path / 'run' / 'epoch_2.pth'
    assert read_checkpoint(last)['meta']['epoch'] == 2
    scores = []
    for name, options in (('other', FLEXIBLE), ('usual', ['--cfg-options'])):
        where = ['--work-dir', name, '--deploy', *options]
        # Runs of one name within a second share a log.
        where += [f'experiment_name={name}']
        tool('test').main([args[0], str(last), *where])
        scores += re.findall(
            r'accuracy/top1: (\S+)', read_log(tmp_path / name)
        )
    assert scores[0] == scores[1]
    # From those weights, and not from a foreign file.
    tool('train').main([*args, *FLEXIBLE, f'load_from={last}'])
    torch.save(dict(state_dict={'a.b': torch.ones(2)}), 'foreign.pth')
    with pytest.raises(SystemExit):
        tool('train').main([*args, *FLEXIBLE, 'load_from=foreign.pth'])


@pytest.mark.skipif(cuda, reason='RoIAlign adds in any order on a GPU')
@pytest.mark.parametrize(
    'name', [pytest.param('det', marks=pytest.mark.slow), 'seg']
)
def test_deterministic(name, workspace, run, tmp_path):
    """Two threads; the config has no seed; a process of its own loads."""
    states = []
    for folder in (tmp_path / 'first', tmp_path / 'second'):
        args = ['train.py', workspace / f'{name}.py', '--deterministic']
        args += ['--work-dir', folder, '--cfg-options', 'val_cfg=None']
        args += ['val_dataloader=None', 'val_evaluator=None']
        args += ['train_dataloader.num_workers=1']
        run(tmp_path, *args, OMP_NUM_THREADS='2')
        states += map(read_checkpoint, folder.glob('*.pth'))
    first, second = states
    assert first['meta']['seed'] == second['meta']['seed'] == 0
    for key, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][key]), key

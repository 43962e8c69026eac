"""One command that compares backbones: whole, resumed, refused."""

import json
import subprocess

import cv2
import pytest

for library in ('mmseg', 'timm'):
    pytest.importorskip(library)

BACKBONES = ['efficientvit_m0', 't2']


@pytest.fixture(scope='module')
def compare(tool):
    return tool('misc/compare_backbones')


@pytest.fixture(scope='module')
def finished(compare, workspace, tmp_path_factory):
    """A whole run of two backbones, two steps each, and its arguments."""
    out = tmp_path_factory.mktemp('backbones')
    args = [
        *(str(workspace / 'seg.py'), '--out', str(out)),
        *('--backbones', *BACKBONES, '--seeds', '3'),
        *('--cfg-options', 'default_hooks.checkpoint.interval=1'),
    ]
    compare.main(args)
    return args, out


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(subprocess, 'run', pytest.fail)


@pytest.mark.slow
def test_table_and_figure(finished):
    _, out = finished
    table = (out / 'comparison.md').read_text().splitlines()
    assert '| mIoU |' in table[0]
    assert [line.split(' | ')[0] for line in table[2:]] == [
        '| efficientvit_m0',
        '| MobileMamba-T2',
    ]
    assert cv2.imread(str(out / 'comparison.png')).std() > 5


@pytest.mark.slow
def test_an_interrupted_training_goes_on(finished, compare):
    """As after a kill between two checkpoints; the other one is kept."""
    args, out = finished
    (run,) = out.glob('*T2_seed3')
    (run / 'iter_2.pth').unlink()
    (run / 'last_checkpoint').write_text(str(run / 'iter_1.pth'))
    before = (out / 'comparison.md').read_text().splitlines()
    compare.main(args)
    logs = sorted(run.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    assert [r['iter'] for r in records if 'loss' in r] == [2]
    assert (out / 'comparison.md').read_text().splitlines()[2] == before[2]


@pytest.mark.parametrize(
    'args, named',
    [
        (['--backbones', 'efficientvit_m'], 'efficientvit_m5'),
        (['--seeds', '-1'], '--seeds'),
        (['--report-only', '--backbones', 't2'], 'no finished training'),
        (
            ['--cfg-options', 'val_dataloader.dataset.data_root=nowhere'],
            'nowhere',
        ),
    ],
)
def test_what_is_refused(
    compare, workspace, tmp_path, no_training, capsys, args, named
):
    config, out = workspace / 'seg.py', tmp_path / 'out'
    with pytest.raises(SystemExit) as ended:
        compare.main([str(config), '--out', str(out), *args])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err

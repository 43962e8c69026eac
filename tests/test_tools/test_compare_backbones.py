"""One command that compares backbones: whole, and refused."""

import subprocess

import cv2
import pytest

for library in ('mmseg', 'timm'):
    pytest.importorskip(library)


@pytest.fixture
def compare(tool, workspace, tmp_path):
    """Give a function that compares backbones in the segmentor."""
    args = [str(workspace / 'seg.py'), '--out', str(tmp_path / 'out')]
    main = tool('misc/compare_backbones').main
    return lambda *more: main([*args, *more])


@pytest.mark.slow
def test_table_and_figure(compare, tmp_path, monkeypatch):
    compare('--seeds', '3', '--backbones', 'efficientvit_m0', 't2')
    path = tmp_path / 'out/comparison.md'
    table = path.read_text().splitlines()
    assert '| mIoU |' in table[0]
    names = [line.split(' | ')[0] for line in table[2:]]
    assert names == ['| efficientvit_m0', '| MobileMamba-T2']
    assert cv2.imread(str(path.with_suffix('.png'))).std() > 5
    # Finished trainings are taken as they are.
    monkeypatch.setattr(subprocess, 'run', pytest.fail)
    compare('--seeds', '3', '--backbones', 't2')
    assert path.read_text().splitlines()[2] == table[3]


@pytest.mark.parametrize(
    'args, named',
    [
        (['--backbones', 'efficientvit_m'], 'efficientvit_m5'),
        (['--report-only', '--backbones', 't2'], 'no finished training'),
        (['--cfg-options', 'val_dataloader.dataset.data_root=gone'], 'gone'),
    ],
)
def test_what_is_refused(compare, monkeypatch, capsys, args, named):
    monkeypatch.setattr(subprocess, 'run', pytest.fail)
    with pytest.raises(SystemExit) as ended:
        compare(*args)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err

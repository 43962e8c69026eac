"""One command that compares backbones: whole, and refused."""

import subprocess

import cv2
import pytest

pytest.importorskip('mmseg')


@pytest.fixture
def compare(tool, workspace, tmp_path):
    """Give a function that compares backbones in the segmentor."""
    args = [str(workspace / 'seg.py'), '--out', str(tmp_path / 'out')]
    main = tool('misc/compare_backbones').main
    return lambda *more: main([*args, '--seeds', '3', '--backbones', *more])


@pytest.mark.slow
def test_table_and_figure(compare, tmp_path, monkeypatch):
    compare('host:resnet18', 't2')
    path = tmp_path / 'out/comparison.md'
    table = path.read_text().splitlines()
    names = [line.split(' | ')[0] for line in table[2:]]
    assert names == ['| resnet18', '| MobileMamba-T2'] and 'mIoU' in table[0]
    assert cv2.imread(str(path.with_suffix('.png'))).std() > 5
    # Finished trainings are taken as they are.
    monkeypatch.setattr(subprocess, 'run', pytest.fail)
    compare('t2')
    assert path.read_text().splitlines()[2] == table[3]


def test_what_is_refused(compare, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, 'run', pytest.fail)
    gone = ['--cfg-options', 'val_dataloader.dataset.data_root=gone']
    twice = ['host:resnet18', 'timm:resnet18']  # in one folder
    jobs = (gone, 'gone'), (['--report-only'], 'no finished'), (twice, 'timm')
    for args, named in (*jobs, (['b1@96'], 'size')):
        with pytest.raises(SystemExit):
            compare('t2', *args)
        assert named in capsys.readouterr().err

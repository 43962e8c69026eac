"""One command that compares backbones: whole, and refused."""

import subprocess

import cv2
import pytest

for library in ('mmseg', 'timm'):
    pytest.importorskip(library)


@pytest.fixture(scope='module')
def main(tool):
    return tool('misc/compare_backbones').main


@pytest.mark.slow
def test_table_and_figure(main, workspace, tmp_path, monkeypatch):
    args = [str(workspace / 'seg.py'), '--out', str(tmp_path), '--seeds', '3']
    main([*args, '--backbones', 'efficientvit_m0', 't2'])
    table = (tmp_path / 'comparison.md').read_text().splitlines()
    assert '| mIoU |' in table[0]
    names = [line.split(' | ')[0] for line in table[2:]]
    assert names == ['| efficientvit_m0', '| MobileMamba-T2']
    assert cv2.imread(str(tmp_path / 'comparison.png')).std() > 5
    # Finished trainings are taken as they are.
    monkeypatch.setattr(subprocess, 'run', pytest.fail)
    main([*args, '--backbones', 't2'])
    assert (tmp_path / 'comparison.md').read_text().splitlines()[2] == table[3]


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
    main, workspace, tmp_path, monkeypatch, capsys, args, named
):
    monkeypatch.setattr(subprocess, 'run', pytest.fail)
    config, out = workspace / 'seg.py', tmp_path / 'out'
    with pytest.raises(SystemExit) as ended:
        main([str(config), '--out', str(out), *args])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err

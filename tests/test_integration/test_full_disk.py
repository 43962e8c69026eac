"""train.py on a disk that is full: one line, and nothing is lost."""

import subprocess

import pytest
import torch
from mmengine.config import Config
from toy_training import toy_config


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 4 MiB, or skip."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('this user may not mount a disk')
    yield folder
    subprocess.run(['umount', '--lazy', folder], check=True)


def test_full_disk(tmp_path, small_disk, starter):
    # Three files of 1.2 MB fit, and a fourth while it is written does not.
    cfg = Config(toy_config('unused', length=6, ballast=150_000))
    cfg.custom_imports = dict(imports=['toy_training'])
    cfg.dump(tmp_path / 'toy.py')
    arguments = [tmp_path / 'toy.py', '--work-dir', small_disk]
    starter.start(*arguments)
    assert starter.end() == 2
    log = starter.log.read_text()
    assert 'Traceback' not in log
    said = log.splitlines()[-1]
    assert 'epoch_6.pth is not saved: No space left on device' in said
    assert f'MiB are free in {small_disk}' in said
    assert '--resume goes on' in said
    # Epoch 4 and 5 were tried as well, and training went on.
    assert log.count('Training goes on') >= 2
    paths = sorted(small_disk.glob('*.pth'))
    for path in paths:
        torch.load(path, weights_only=False)
    assert (small_disk / 'last_checkpoint').read_text() == str(paths[-1])
    for path in paths[:2]:
        path.unlink()
    few = 'default_hooks.checkpoint.max_keep_ckpts=1'
    starter.start(*arguments, '--resume', '--cfg-options', few)
    assert starter.end() == 0, starter.log.read_text()
    assert (small_disk / 'epoch_6.pth').exists()

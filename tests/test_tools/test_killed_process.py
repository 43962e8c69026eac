"""One of two training processes is killed, or hangs: the run ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
cuda = torch.cuda.is_available()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cuda, reason='with a GPU NCCL joins the processes'),
]


def child(launcher, rank):
    """Return the process of a rank that a launcher started."""
    children = Path(f'/proc/{launcher}/task/{launcher}/children').read_text()
    for pid in children.split():
        if f'\0RANK={rank}\0' in Path(f'/proc/{pid}/environ').read_text():
            return int(pid)
    raise AssertionError(f'no process of rank {rank}')


@pytest.mark.parametrize(
    ('how', 'words'),
    [
        (signal.SIGKILL, ('Signal 9 (SIGKILL)',)),
        # Nobody notices but those who wait for it.
        (signal.SIGSTOP, ('imed out', 'env_cfg.dist_cfg.timeout')),
    ],
)
def test_ends_the_others(workspace, repo, tmp_path, free_port, how, words):
    said = tmp_path / 'said'
    options = ['train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']
    options += ['env_cfg.dist_cfg.timeout=20']
    script, config = repo / 'tools/dist_train.sh', workspace / 'seg.py'
    args = ['--work-dir', tmp_path / 'run', '--cfg-options', *options]
    with open(said, 'w') as file:
        run = subprocess.Popen(
            ['bash', script, config, '2', *args],
            env={**os.environ, 'PYTHON': sys.executable, 'PORT': free_port},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    children = []
    try:
        stop = time.monotonic() + 240
        while not re.search(r'Iter\(train\) \[ *4/', said.read_text()):
            assert time.monotonic() < stop, said.read_text()[-4000:]
            assert run.poll() is None, said.read_text()[-4000:]
            time.sleep(0.2)
        children = [child(run.pid, rank) for rank in (0, 1)]
        os.kill(children[1], how)
        # The launcher itself waits half a minute for a process that hangs.
        assert run.wait(120) != 0
        text = said.read_text()
        assert all(word in text for word in words), text[-4000:]
        # The checkpoints that were written stay.
        assert (tmp_path / 'run' / 'iter_2.pth').is_file()
        assert not any(os.path.exists(f'/proc/{pid}') for pid in children)
    finally:
        for pid in (run.pid, *children):
            if os.path.exists(f'/proc/{pid}'):
                os.kill(pid, signal.SIGKILL)

"""One of two training processes is killed, or hangs: the run ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

pytest.importorskip('mmseg')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.cuda.is_available(), reason='with a GPU NCCL joins the processes'
    ),
    pytest.mark.skipif(
        not os.path.isdir('/proc'), reason='needs /proc to find processes'
    ),
]
# The launcher itself waits half a minute for a process that hangs.
START, END = 240, 120


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def wait_for(what, seconds):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        found = what()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f'not within {seconds} s')


def child(launcher, rank):
    """Return the process of a rank that a launcher started."""
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/stat') as file:
                parent = int(file.read().rpartition(')')[2].split()[1])
            with open(f'/proc/{name}/environ') as file:
                variables = file.read().split('\0')
        except OSError:
            continue  # it ended meanwhile
        if parent == launcher and f'RANK={rank}' in variables:
            return int(name)
    raise AssertionError(f'no process of rank {rank}')


@pytest.mark.parametrize(
    ('how', 'words'),
    [
        (signal.SIGKILL, ('Signal 9 (SIGKILL)',)),
        # Nobody notices but those who wait for it.
        (signal.SIGSTOP, ('imed out', 'env_cfg.dist_cfg.timeout')),
    ],
)
def test_ends_the_others(workspace, repo, tmp_path, how, words):
    said = tmp_path / 'said'
    options = ['train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']
    options += ['env_cfg.dist_cfg.timeout=20']
    with open(said, 'w') as file:
        run = subprocess.Popen(
            [
                'bash',
                repo / 'tools/dist_train.sh',
                workspace / 'seg.py',
                '2',
                *('--work-dir', tmp_path / 'run', '--cfg-options', *options),
            ],
            env={
                **os.environ,
                'PYTHON': sys.executable,
                'PORT': free_port(),
                'OMP_NUM_THREADS': '1',
            },
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    children = []
    try:
        trains = r'Iter\(train\) \[ *4/'
        wait_for(
            lambda: (
                re.search(trains, said.read_text()) or run.poll() is not None
            ),
            START,
        )
        assert run.poll() is None, said.read_text()[-4000:]
        children = [child(run.pid, rank) for rank in (0, 1)]
        os.kill(children[1], how)
        assert run.wait(END) != 0
        text = said.read_text()
        assert all(word in text for word in words), text[-4000:]
        # The checkpoints that were written stay.
        assert (tmp_path / 'run' / 'iter_2.pth').is_file()
        assert not any(os.path.exists(f'/proc/{pid}') for pid in children)
    finally:
        for pid in (run.pid, *children):
            if os.path.exists(f'/proc/{pid}'):
                os.kill(pid, signal.SIGKILL)

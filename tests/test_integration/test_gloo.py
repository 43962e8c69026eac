"""Two processes on a CPU are one with their batches together."""

import subprocess
import sys

import pytest
import torch

from mmmobilemamba.datasets import make_shapes

pytest.importorskip('mmseg')
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='with a GPU NCCL joins the processes'
)
# The last batch of two processes has one picture each, and the last but one
# of one process is whole.
TRAINING, HELD_OUT = 6, 5


@pytest.fixture(scope='module')
def done(repo, tmp_path_factory):
    """The script and its folder, after it ran."""
    out = tmp_path_factory.mktemp('seen')
    make_shapes(out / 'shapes', TRAINING, HELD_OUT, 96)
    script = subprocess.run(
        [sys.executable, repo / 'tests/gloo_run.py', out / 'shapes', out],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert script.returncode == 0, script.stderr[-4000:]
    return script, out


@pytest.fixture(scope='module')
def seen(done):
    """What one process saw, and what each of two."""
    return [
        torch.load(done[1] / f'{name}.pth', weights_only=True)
        for name in ('seen1_0', 'seen2_0', 'seen2_1')
    ]


def test_losses_are_those_of_one_process(seen):
    alone, *two = (torch.tensor(s['losses']) for s in seen)
    assert len(alone) == 2
    # The mean of the processes', which see as many pixels each.
    torch.testing.assert_close(sum(two) / 2, alone, rtol=1e-5, atol=0)
    assert not torch.equal(two[0], two[1])


# After an update the difference of the first step is in the weights too.
@pytest.mark.parametrize(('step', 'tolerance'), [(0, 1e-5), (1, 5e-5)])
def test_gradients_are_those_of_one_process(seen, step, tolerance):
    """The second step has an uneven batch."""
    for alone, *two in zip(*(s['gradients'][step] for s in seen)):
        assert torch.equal(*two)
        # Sums in another order: to a share of the largest of a tensor.
        error = (two[0] - alone).abs().max()
        assert error <= tolerance * alone.abs().max().clamp(min=1e-6)
        assert alone.abs().max() > 0


def test_metric_counts_each_sample_once(seen):
    """Five pictures, two at a time, for two processes: one is padded."""
    alone, first, second = (s['metrics'] for s in seen)
    assert 0 < alone['mIoU'] < 100
    assert first == second == alone


def test_a_killed_process_ends_the_other(done):
    """Without a launcher that would end it, as under Slurm or MPI."""
    said = done[0].stdout.rpartition('ended: ')[2].split()
    killed, other, seconds = map(float, said)
    assert int(killed) & 0x7F == 9
    assert other != 0
    assert seconds < 60
    assert 'peer' in done[0].stderr

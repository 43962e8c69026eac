"""Two processes on a CPU are one with their batches together."""

import time

import pytest
import torch
from small_fpn import small_fpn

from mmmobilemamba.datasets import make_shapes

pytest.importorskip('mmseg')
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='with a GPU NCCL joins the processes'
)


@pytest.fixture(scope='module')
def train(starter, tmp_path_factory):
    """Give a function that trains, and returns the exit code and a folder."""
    root = tmp_path_factory.mktemp('gloo')
    # The last of the batches of 4 is uneven, of each process as well.
    make_shapes(root / 'shapes', num_train=6, num_val=5, size=96)

    def call(processes, end=False):
        folder = root / f'run{processes}{end}'
        cfg = small_fpn(root / 'shapes', folder)
        cfg.custom_imports = dict(imports=['small_fpn'])
        cfg.custom_hooks = [dict(type='mmengine.WatchHook', end=end)]
        cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
        cfg.model.decode_head.dropout_ratio = 0.0
        cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
        cfg.train_dataloader.batch_size = 4 // processes
        cfg.val_dataloader.batch_size = 2
        cfg.dump(root / 'config.py')
        starter.start(root / 'config.py', processes=processes)
        return starter.end(), folder

    return call


@pytest.fixture(scope='module')
def seen(train, starter):
    """What one process saw, and what each of two."""
    paths = []
    for processes in (1, 2):
        code, folder = train(processes)
        assert code == 0, starter.log.read_text()[-4000:]
        paths += sorted(folder.glob('seen_*.pth'))
    return [torch.load(path, weights_only=True) for path in paths]


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
    """Five images, two at a time, for two processes: one is padded."""
    alone, first, second = (s['metrics'] for s in seen)
    assert 0 < alone['mIoU'] < 100
    assert first == second == alone


def test_a_killed_process_ends_the_other(train, starter):
    """Without a launcher that would end it, as under Slurm or MPI."""
    begin = time.monotonic()
    code, _ = train(2, end=True)
    assert code != 0
    assert time.monotonic() - begin < 90
    assert 'peer' in starter.log.read_text()

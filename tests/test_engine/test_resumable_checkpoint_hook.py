"""A training that stops and goes on ends as one that never stopped."""

import os
from pathlib import Path

import pytest
import torch
from toy_training import LENGTH, StoppedError, ToyNumbers, check_equal
from toy_training import train_toy as start


@pytest.fixture(autouse=True)
def wait_less(monkeypatch):
    """Shorten mmengine's rest between passes, and torch's for processes."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda x: None)
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 1)


def result(runner):
    """Return everything that has to be equal."""
    path = runner.message_hub.get_info('last_ckpt')
    content = torch.load(path, weights_only=False)
    names = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    found = {name: content[name] for name in names}
    for name in ('train/loss', 'train/lr', 'val/acc'):
        found[name] = runner.message_hub.get_scalar(name).current()
    found['best'] = runner.message_hub.get_info('best_score')
    return found


def read_log(runner):
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


# Saved after each epoch, stopped within one.
EPOCH = dict(stop=2 * LENGTH + 3)
# Saved within an epoch, stopped elsewhere in it; and at its end.
WITHIN = dict(interval=3, by_epoch=False, stop=2 * LENGTH + 5)
AT_END = dict(interval=LENGTH, by_epoch=False, stop=LENGTH + 3)
# Loops that count iterations, over an endless order and a finite one.
ENDLESS = dict(loop='iter', length=30, stop=19, sampler='InfiniteSampler')
FINITE = dict(loop='iter', length=14, interval=3, stop=11)


@pytest.mark.parametrize(
    ('plan', 'workers', 'persistent'),
    [
        *((plan, 0, False) for plan in (EPOCH, WITHIN, AT_END)),
        (EPOCH, 2, False),
        (ENDLESS, 2, True),
        (FINITE, 2, True),
        (WITHIN, 3, True),
    ],
)
def test_same_end(tmp_path, plan, workers, persistent):
    loading = dict(num_workers=workers, persistent_workers=persistent)
    plan = dict(plan, loading=loading, save_best='acc')
    stop = dict(type='StopHook', iteration=plan.pop('stop'))
    whole = start(tmp_path / 'whole', **plan)
    with pytest.raises(StoppedError):
        start(tmp_path / 'parts', hooks=[stop], **plan)
    check_equal(result(whole), result(start(tmp_path / 'parts', **plan)))


@pytest.mark.parametrize(
    ('loop', 'iteration'), [('epoch', 2 * LENGTH), ('iter', 2)]
)
def test_validation_that_was_due_is_made_up_for(tmp_path, loop, iteration):
    plan = dict(loop=loop, length=2, save_best='acc')
    whole = start(tmp_path / 'whole', **plan)
    stop = dict(type='StopHook', iteration=iteration, place='before_val')
    with pytest.raises(StoppedError):
        start(tmp_path / 'parts', hooks=[stop], **plan)
    check_equal(result(whole), result(start(tmp_path / 'parts', **plan)))


def test_seed_that_nobody_chose_is_kept(tmp_path):
    whole = start(tmp_path, seed=None, max_keep_ckpts=9)
    wanted = result(whole)
    for name in ('epoch_4.pth', 'epoch_3.pth'):
        (tmp_path / name).unlink()
    # As a kill may leave it; then the time decides.
    (tmp_path / 'last_checkpoint').write_text('')
    parts = start(tmp_path, seed=None, max_keep_ckpts=9)
    assert whole.seed == parts.seed
    check_equal(wanted, result(parts))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """Turn a bit of a tensor, not of what pads the archive."""
    weight = torch.load(path, weights_only=False)['state_dict']['net.0.weight']
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes())] ^= 1
    path.write_bytes(content)


def other_network(path):
    content = torch.load(path, weights_only=False)
    content['state_dict'] = dict(theirs=torch.ones(3))
    torch.save(content, path)


@pytest.mark.parametrize(
    'fault',
    [
        *(truncate, flip, other_network, Path.unlink),
        lambda path: torch.save(dict(state_dict={}), path),
        lambda path: torch.save(dict(meta=Path('call me')), path),
    ],
)
def test_bad_checkpoint_is_named_and_passed_over(tmp_path, fault):
    whole = result(start(tmp_path))
    fault(tmp_path / 'epoch_4.pth')
    runner = start(tmp_path)
    log = read_log(runner)
    (line,) = (x for x in log.splitlines() if 'Passed over' in x)
    assert str(tmp_path / 'epoch_4.pth') in line and 'WARNING' in line
    assert 'resumed epoch: 3' in log
    check_equal(whole, result(runner))


def test_nothing_whole_is_a_new_start(tmp_path):
    start(tmp_path, length=2)
    for path in tmp_path.glob('*.pth'):
        truncate(path)
    (tmp_path / 'last_checkpoint').write_text('')
    runner = start(tmp_path, length=2)
    assert read_log(runner).count('Passed over') == 2
    assert runner.iter == 2 * LENGTH


def test_folder_of_another_network_is_refused(tmp_path):
    start(tmp_path, length=2)
    for path in tmp_path.glob('*.pth'):
        other_network(path)
    with pytest.raises(ValueError, match='of another network.*--work-dir'):
        start(tmp_path, length=2)


def test_other_number_of_batches_is_said(tmp_path, monkeypatch):
    start(tmp_path, length=2)
    monkeypatch.setattr(ToyNumbers, '__len__', lambda self: 6)
    assert f'1 processes with {LENGTH} batches' in read_log(start(tmp_path))

"""A training that stops and goes on ends as one that never stopped."""

import os
import struct
import zipfile
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
    scalars = runner.message_hub.log_scalars
    for name in ('train/loss', 'train/lr', 'val/acc'):
        found[name] = scalars[name].current()
    return found


ALONE = dict(workers=0)
TWO = dict(workers=2)
STAYING = dict(workers=2, persistent=True)
THREE = dict(workers=3, persistent=True)
# Saved after each epoch, stopped within one.
EPOCH = dict(stop=2 * LENGTH + 3)
# Saved within an epoch, stopped elsewhere in it; and at its end.
WITHIN = dict(interval=3, by_epoch=False, stop=2 * LENGTH + 5)
AT_END = dict(interval=LENGTH, by_epoch=False, stop=LENGTH + 3)
# Loops that count iterations, over an endless order and a finite one.
ENDLESS = dict(loop='iter', length=30, stop=19, sampler='InfiniteSampler')
FINITE = dict(loop='iter', length=14, interval=3, stop=11)


@pytest.mark.parametrize(
    ('plan', 'loading'),
    [
        *((x, ALONE) for x in (EPOCH, WITHIN, AT_END)),
        (EPOCH, TWO),
        (ENDLESS, STAYING),
        (FINITE, STAYING),
        (WITHIN, THREE),
    ],
)
def test_same_end(tmp_path, plan, loading):
    plan = dict(plan, **loading)
    stop = dict(type='StopHook', iteration=plan.pop('stop'))
    whole = start(tmp_path / 'whole', **plan)
    with pytest.raises(StoppedError):
        start(tmp_path / 'parts', hooks=[stop], **plan)
    check_equal(result(whole), result(start(tmp_path / 'parts', **plan)))


@pytest.mark.parametrize('loop', ['epoch', 'iter'])
def test_validation_that_was_due_is_made_up_for(tmp_path, loop):
    plan = dict(loop=loop, length=2, save_best='acc')
    whole = start(tmp_path / 'whole', **plan)
    last = 2 * LENGTH if loop == 'epoch' else 2
    stop = dict(type='StopHook', validation=last)
    with pytest.raises(StoppedError):
        start(tmp_path / 'parts', hooks=[stop], **plan)
    parts = start(tmp_path / 'parts', **plan)
    check_equal(result(whole), result(parts))
    best = [x.message_hub.get_info('best_score') for x in (whole, parts)]
    assert best[0] == best[1]


def read_log(runner):
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


def test_seed_that_nobody_chose_is_kept(tmp_path):
    folder = tmp_path / 'run'
    whole = start(folder, seed=None, max_keep_ckpts=9)
    wanted = result(whole)
    for name in ('epoch_4.pth', 'epoch_3.pth', 'last_checkpoint'):
        (folder / name).unlink()
    parts = start(folder, seed=None, max_keep_ckpts=9)
    assert whole.seed == parts.seed
    check_equal(wanted, result(parts))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """Turn a byte of the largest tensor, not of what pads the archive."""
    with zipfile.ZipFile(path) as file:
        entry = max(file.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    lengths = entry.header_offset + 26
    data = lengths + 4 + sum(struct.unpack_from('<HH', content, lengths))
    content[data + entry.file_size // 2] ^= 255
    path.write_bytes(content)


def only_weights(path):
    torch.save(dict(state_dict=dict(a=torch.ones(2))), path)


def unsafe(path):
    torch.save(dict(meta=Path('call me')), path)


def other_network(path):
    content = torch.load(path, weights_only=False)
    content['state_dict'] = dict(theirs=torch.ones(3))
    torch.save(content, path)


@pytest.mark.parametrize(
    'fault',
    [truncate, flip, only_weights, unsafe, other_network, Path.unlink],
    ids=lambda fault: fault.__name__,
)
def test_bad_checkpoint_is_named_and_passed_over(tmp_path, fault):
    folder = tmp_path / 'run'
    whole = result(start(folder))
    fault(folder / 'epoch_4.pth')
    runner = start(folder)
    log = read_log(runner)
    (line,) = (x for x in log.splitlines() if 'Passed over' in x)
    assert str(folder / 'epoch_4.pth') in line and 'WARNING' in line
    assert 'resumed epoch: 3' in log
    check_equal(whole, result(runner))


def test_nothing_whole_is_a_new_start(tmp_path):
    folder = tmp_path / 'run'
    start(folder, length=2)
    for path in folder.glob('*.pth'):
        truncate(path)
    (folder / 'last_checkpoint').write_text('')
    runner = start(folder, length=2)
    assert read_log(runner).count('Passed over') == 2
    assert runner.iter == 2 * LENGTH


def test_folder_of_another_network_is_refused(tmp_path):
    folder = tmp_path / 'run'
    start(folder, length=2)
    for path in folder.glob('*.pth'):
        other_network(path)
    with pytest.raises(ValueError, match='of another network.*--work-dir'):
        start(folder, length=2)


def test_other_number_of_batches_is_said(tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    start(folder, length=2)
    monkeypatch.setattr(ToyNumbers, '__len__', lambda self: 6)
    log = read_log(start(folder))
    assert (
        f'with {LENGTH} batches in an epoch, and this run of 1 with 3' in log
    )

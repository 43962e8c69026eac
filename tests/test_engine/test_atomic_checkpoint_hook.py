"""No fault while a checkpoint is written costs one that was there."""

import itertools
import os
import resource
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from toy_training import train_toy

from mmmobilemamba.engine.resumable_checkpoint_hook import UnsavedError


class CrashError(BaseException):
    """Passes every ``except Exception``, as the end of a process does."""


def let_crash(monkeypatch, number):
    """Let that call of those that change what is on the disk crash."""
    calls = itertools.count(1)

    def counted(name, step):
        def call(*args, **kwargs):
            if next(calls) == number:
                raise CrashError(name)
            return step(*args, **kwargs)

        return call

    for name in ('fsync', 'replace', 'unlink'):
        step = getattr(os, name)
        monkeypatch.setattr(os, name, counted(name, step))


@pytest.fixture
def train(tmp_path):
    """Give a function that trains in the folder of the test."""
    return lambda name='run', **kwargs: train_toy(tmp_path / name, **kwargs)


def epochs(folder):
    return sorted(path.name for path in folder.glob('epoch_*.pth'))


def last(folder):
    """Load what ``last_checkpoint`` names."""
    path = Path((folder / 'last_checkpoint').read_text())
    return path.name, torch.load(path, weights_only=False)


def test_a_crash_at_any_step_of_saving(tmp_path, train, monkeypatch):
    """Each step that changes a name is the last one of some run."""
    found = set()
    for crash in range(1, 100):
        folder = f'run{crash}'
        with monkeypatch.context() as patch:
            let_crash(patch, crash)
            try:
                train(folder, max_keep_ckpts=1, save_best='acc', length=2)
                break
            except CrashError as error:
                found.add(str(error))
        names = epochs(tmp_path / folder)
        if names:
            torch.load(tmp_path / folder / names[-1], weights_only=False)
        if (tmp_path / folder / 'last_checkpoint').exists():
            name, content = last(tmp_path / folder)
            assert name in names
            best = content['message_hub']['runtime_info'].get('best_ckpt')
            assert best is None or list((tmp_path / folder).glob('best_*'))
    assert found == {'fsync', 'replace', 'unlink'}
    assert epochs(tmp_path / folder) == ['epoch_2.pth']


def test_folder_for_checkpoints_alone(tmp_path, train, monkeypatch):
    """It is given relative to where the tool is started."""
    monkeypatch.chdir(tmp_path)
    train(out_dir='saved', max_keep_ckpts=2, save_best='acc')
    folder = tmp_path / 'saved' / 'run'
    assert epochs(folder) == ['epoch_3.pth', 'epoch_4.pth']
    assert not list(folder.glob('.draft*'))
    assert len(list(folder.glob('best_*'))) == 1
    os.truncate(folder / 'epoch_4.pth', 99)
    runner = train(out_dir='saved', max_keep_ckpts=2, save_best='acc')
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert 'resumed epoch: 3' in log


def test_what_a_kill_left_is_cleared_away(tmp_path, train):
    train(max_keep_ckpts=2)
    folder = tmp_path / 'run'
    draft = folder / '.draft_killed' / 'epoch_5.pth'
    draft.parent.mkdir()
    draft.write_bytes(b'half')
    # The run was killed after epoch 4 was saved, before epoch 2 was removed.
    path = folder / 'epoch_4.pth'
    content = torch.load(path, weights_only=False)
    info = content['message_hub']['runtime_info']
    info['keep_ckpt_ids'] = [2, 3, 4]
    torch.save(content, path)
    (folder / 'epoch_2.pth').write_bytes(b'old')
    train(max_keep_ckpts=2, length=5)
    assert epochs(folder) == ['epoch_4.pth', 'epoch_5.pth']
    assert not draft.parent.exists()


class LimitHook(Hook):
    """Let no file grow beyond a size in some epochs, as a full disk does."""

    def __init__(self, begin, end, size):
        self.begin, self.end, self.size = begin, end, size

    def before_train_epoch(self, runner):
        full = self.begin <= runner.epoch < self.end
        limit = self.size if full else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))


@pytest.fixture
def fill():
    """Give LimitHook, and lift the limit at the end."""
    yield LimitHook
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, -1))


BALLAST = dict(type='ToyModel', ballast=100_000)


def test_full_at_the_end(tmp_path, train, fill):
    with pytest.raises(UnsavedError, match='epoch_4.pth is not saved: File'):
        train(model=BALLAST, register=[fill(2, 9, 200_000)], max_keep_ckpts=1)
    folder = tmp_path / 'run'
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, -1))
    assert epochs(folder) == ['epoch_2.pth']
    assert last(folder)[0] == 'epoch_2.pth'
    # With room again, the training ends as it would have.
    train(model=BALLAST, max_keep_ckpts=1)
    assert epochs(folder) == ['epoch_4.pth']


def test_best_unsaved_is_an_error_and_no_record(tmp_path, train, fill):
    hub = None

    class Keep(fill):
        def before_run(self, runner):
            nonlocal hub
            hub = runner.message_hub

    with pytest.raises(UnsavedError, match='the best checkpoint is not'):
        train(model=BALLAST, register=[Keep(2, 9, 200_000)], save_best='acc')
    best = hub.get_info('best_ckpt')
    assert [str(path) for path in tmp_path.glob('run/best_*')] == [best]
    assert 'epoch_2' in best


def test_full_for_a_while(tmp_path, train, fill):
    train(
        model=BALLAST,
        register=[fill(1, 3, 200_000)],
        max_keep_ckpts=1,
        save_best='acc',
    )
    folder = tmp_path / 'run'
    assert epochs(folder) == ['epoch_4.pth']
    assert last(folder)[0] == 'epoch_4.pth'
    log = next(folder.rglob('*.log')).read_text()
    said = [line for line in log.splitlines() if 'is not saved' in line]
    # Epochs 2 and 3, and the best one at the validation after 2.
    assert len(said) == 3
    for line in said:
        assert 'File too large' in line and 'epoch_1.pth' in line

"""No fault while a checkpoint is written costs one that was there."""

import itertools
import os
from functools import partial
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from toy_training import train_toy

from mmmobilemamba.engine.resumable_checkpoint_hook import UnsavedError


def epochs(folder):
    return sorted(path.name for path in folder.glob('epoch_*.pth'))


def last(folder):
    """Load what ``last_checkpoint`` names."""
    path = Path((folder / 'last_checkpoint').read_text())
    return path.name, torch.load(path, weights_only=False)


def read_log(folder):
    return max(folder.glob('*/*.log')).read_text()


def test_a_crash_at_any_step_of_saving(tmp_path, monkeypatch):
    """Each step that changes a name is the last one of some run."""
    found = set()

    def crash(name, step, crashes, *args, **kwargs):
        if next(crashes, False):
            found.add(name)
            # Passes every "except Exception", as the end of a process does.
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    for number in itertools.count():
        folder = tmp_path / f'run{number}'
        crashes = itertools.chain([False] * number, [True])
        with monkeypatch.context() as patch:
            for name in ('fsync', 'replace', 'unlink'):
                step = partial(crash, name, getattr(os, name), crashes)
                patch.setattr(os, name, step)
            try:
                train_toy(folder, max_keep_ckpts=1, save_best='acc', length=2)
                break
            except KeyboardInterrupt:
                pass
        names = epochs(folder)
        if names:
            torch.load(folder / names[-1], weights_only=False)
        if (folder / 'last_checkpoint').exists():
            name, content = last(folder)
            assert name in names
            best = content['message_hub']['runtime_info'].get('best_ckpt')
            assert best is None or list(folder.glob('best_*'))
    assert found == {'fsync', 'replace', 'unlink'}
    assert epochs(folder) == ['epoch_2.pth']


def test_folder_for_checkpoints_alone(tmp_path, monkeypatch):
    """It is given relative to where the tool is started."""
    monkeypatch.chdir(tmp_path)
    plan = dict(out_dir='saved', max_keep_ckpts=2, save_best='acc')
    train_toy(tmp_path, **plan)
    saved = tmp_path / 'saved' / tmp_path.name
    assert epochs(saved) == ['epoch_3.pth', 'epoch_4.pth']
    assert len(list(saved.iterdir())) == 3  # the best one, too
    os.truncate(saved / 'epoch_4.pth', 99)
    train_toy(tmp_path, **plan)
    assert 'resumed epoch: 3' in read_log(tmp_path)


def test_what_a_kill_left_is_cleared_away(tmp_path):
    train_toy(tmp_path, max_keep_ckpts=2)
    draft = tmp_path / '.draft_killed' / 'epoch_5.pth'
    draft.parent.mkdir()
    draft.write_bytes(b'half')
    # The run was killed after epoch 4 was saved, before epoch 2 was removed.
    assert last(tmp_path)[1]['resume_state']['outdated'] == ['epoch_2.pth']
    (tmp_path / 'epoch_2.pth').write_bytes(b'old')
    (tmp_path / 'epoch_1.pth').write_bytes(b'of another run')
    train_toy(tmp_path, max_keep_ckpts=2, length=5)
    assert epochs(tmp_path) == ['epoch_1.pth', 'epoch_4.pth', 'epoch_5.pth']
    assert not draft.parent.exists()


class LimitHook(Hook):
    """Let no file grow beyond a size in some epochs, as a full disk does."""

    def __init__(self, full):
        self.full = full

    def before_train_epoch(self, runner):
        limit = 200_000 if runner.epoch in self.full else RLIM_INFINITY
        setrlimit(RLIMIT_FSIZE, (limit, -1))


def train_limited(folder, full, **kwargs):
    try:
        train_toy(folder, hooks=[LimitHook(full)], ballast=100_000, **kwargs)
    finally:
        setrlimit(RLIMIT_FSIZE, (RLIM_INFINITY, -1))


def test_full_at_the_end(tmp_path):
    with pytest.raises(UnsavedError, match='epoch_4.pth is not saved: File'):
        train_limited(tmp_path, (2, 3), max_keep_ckpts=1)
    assert epochs(tmp_path) == ['epoch_2.pth']
    assert last(tmp_path)[0] == 'epoch_2.pth'
    # With room again, the training ends as it would have.
    train_limited(tmp_path, (), max_keep_ckpts=1)
    assert epochs(tmp_path) == ['epoch_4.pth']


def test_best_unsaved_is_an_error_and_no_record(tmp_path):
    with pytest.raises(UnsavedError, match='the best checkpoint is not'):
        train_limited(tmp_path, (2, 3), save_best='acc')
    (best,) = tmp_path.glob('best_*')
    assert 'epoch_2' in best.name
    hub = MessageHub.get_current_instance()
    assert hub.get_info('best_ckpt') == str(best)


def test_full_for_a_while(tmp_path):
    train_limited(tmp_path, (1, 2), max_keep_ckpts=1, save_best='acc')
    assert epochs(tmp_path) == ['epoch_4.pth']
    assert last(tmp_path)[0] == 'epoch_4.pth'
    said = [x for x in read_log(tmp_path).splitlines() if 'not saved' in x]
    # Epochs 2 and 3, and the best one at the validation after 2.
    assert len(said) == 3
    for line in said:
        assert 'File too large' in line and 'epoch_1.pth' in line

"""train.py is killed, again and again, and ends as if it had not been."""

import json
import os
import random
import signal
import time

import pytest
import torch
from mmengine.config import Config
from toy_training import LENGTH, check_equal, toy_config

EPOCHS = 40


def is_writing(folder):
    return any(name.startswith('.draft_') for name in os.listdir(folder))


def result(folder):
    """Return the last checkpoint and the last metric."""
    path = (folder / 'last_checkpoint').read_text()
    content = torch.load(path, weights_only=False)
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    lines = ''.join(log.read_text() for log in logs).splitlines()
    metrics = [x['acc'] for x in map(json.loads, lines) if 'acc' in x]
    return content, metrics[-1]


def dump(cfg, path):
    """Write a config for train.py to read, and return its path."""
    cfg.custom_imports = dict(imports=['toy_training'])
    cfg.dump(path)
    return str(path)


@pytest.mark.parametrize(
    ('workers', 'count'),
    [(0, 8), pytest.param(2, 20, marks=pytest.mark.slow)],
)
def test_many_kills(tmp_path, starter, workers, count):
    cfg = Config(
        toy_config(
            'unused',
            length=EPOCHS,
            model=dict(type='ToyModel', ballast=500_000),
            workers=workers,
            persistent=workers > 0,
            # Within the epochs as well as at the end of some.
            by_epoch=False,
            interval=3,
            max_keep_ckpts=2,
            save_best='acc',
        )
    )
    config = dump(cfg, tmp_path / 'toy.py')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    parts.mkdir()

    starter.start(config, '--work-dir', whole)
    assert starter.end() == 0, starter.log.read_text()

    choose = random.Random(0)
    kills = writing = 0
    arguments = [config, '--work-dir', parts, '--resume']
    while kills < count:
        process = starter.start(*arguments)
        # Every other one while a file is being written.
        files = choose.randint(1, 6)
        moment = time.monotonic() + choose.uniform(0, 1)
        while files if kills % 2 else time.monotonic() < moment:
            if kills % 2 and is_writing(parts):
                files -= 1
                while files and is_writing(parts):
                    time.sleep(0.0005)
            if files:
                time.sleep(0.0005)
        os.kill(process, signal.SIGKILL)
        assert starter.end() == -signal.SIGKILL, starter.log.read_text()
        kills += 1
        writing += is_writing(parts)
    assert writing >= count // 4
    starter.start(*arguments)
    assert starter.end() == 0, starter.log.read_text()

    check_same_end(whole, parts)
    files = [{x.name for x in y.glob('*.pth')} for y in (whole, parts)]
    assert files[0] == files[1]
    assert not is_writing(parts)


def test_two_processes_stopped(tmp_path, starter):
    cfg = Config(toy_config('unused', length=4, workers=1, persistent=True))
    # Each process draws random numbers of its own.
    cfg.randomness.diff_rank_seed = True
    config = dump(cfg, tmp_path / 'toy.py')
    cfg.custom_hooks.append(dict(type='StopHook', iteration=LENGTH + 2))
    stopped = dump(cfg, tmp_path / 'stopped.py')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    runs = [(config, whole, 0), (stopped, parts, 1), (config, parts, 0)]
    for file, folder, code in runs:
        starter.start(file, '--work-dir', folder, '--resume', processes=2)
        assert starter.end() == code, starter.log.read_text()
    states = check_same_end(whole, parts)['states']
    assert len(states) == 2
    assert not torch.equal(states[0]['torch'], states[1]['torch'])


def check_same_end(whole, parts):
    """Return what a run without a kill kept to be resumed with."""
    one, metric = result(whole)
    other, other_metric = result(parts)
    assert metric == other_metric
    names = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    for name in (*names, 'resume_state'):
        check_equal(one[name], other[name])
    info, other_info = (x['message_hub']['runtime_info'] for x in (one, other))
    assert info.get('best_score') == other_info.get('best_score')
    return one['resume_state']

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


def is_writing(folder):
    return any(name.startswith('.draft_') for name in os.listdir(folder))


def wait_until(folder, writing):
    while is_writing(folder) != writing:
        time.sleep(0.0005)


def result(folder):
    """Return what has to be equal."""
    path = (folder / 'last_checkpoint').read_text()
    content = torch.load(path, weights_only=False)
    names = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    found = {name: content[name] for name in (*names, 'resume_state')}
    info = content['message_hub']['runtime_info']
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    lines = ''.join(log.read_text() for log in logs).splitlines()
    metrics = [x['acc'] for x in map(json.loads, lines) if 'acc' in x]
    return dict(found, best=info.get('best_score'), last=metrics[-1])


def dump(cfg, path):
    cfg = Config(dict(cfg, custom_imports=dict(imports=['toy_training'])))
    cfg.dump(path)
    return path


@pytest.mark.parametrize(
    ('workers', 'count'),
    [(0, 8), pytest.param(2, 20, marks=pytest.mark.slow)],
)
def test_many_kills(tmp_path, starter, workers, count):
    cfg = toy_config(
        'unused',
        length=40,
        ballast=500_000,
        loading=dict(num_workers=workers, persistent_workers=workers > 0),
        # Within the epochs as well as at the end of some.
        by_epoch=False,
        interval=3,
        max_keep_ckpts=2,
        save_best='acc',
    )
    config = dump(cfg, tmp_path / 'toy.py')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    parts.mkdir()
    starter.start(config, '--work-dir', whole)
    assert starter.end() == 0, starter.log.read_text()

    choose, written = random.Random(0), 0
    arguments = [config, '--work-dir', parts, '--resume']
    for kill in range(count):
        process = starter.start(*arguments)
        # Every other one while a file is being written.
        for _ in range(choose.randint(1, 6) if kill % 2 else 0):
            wait_until(parts, writing=False)
            wait_until(parts, writing=True)
        if kill % 2 == 0:
            time.sleep(choose.uniform(0, 1))
        os.kill(process, signal.SIGKILL)
        assert starter.end() == -signal.SIGKILL, starter.log.read_text()
        written += is_writing(parts)
    assert written >= count // 4
    starter.start(*arguments)
    assert starter.end() == 0, starter.log.read_text()

    check_equal(result(whole), result(parts))
    files = [{x.name for x in y.glob('*.pth')} for y in (whole, parts)]
    assert files[0] == files[1]
    assert not is_writing(parts)


def test_two_processes_stopped(tmp_path, starter):
    loading = dict(num_workers=1, persistent_workers=True)
    cfg = toy_config('unused', loading=loading)
    # Each process draws random numbers of its own.
    cfg['randomness']['diff_rank_seed'] = True
    config = dump(cfg, tmp_path / 'toy.py')
    cfg['custom_hooks'] += [dict(type='StopHook', iteration=LENGTH + 2)]
    stopped = dump(cfg, tmp_path / 'stopped.py')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    runs = [(config, whole, 0), (stopped, parts, 1), (config, parts, 0)]
    for file, folder, code in runs:
        starter.start(file, '--work-dir', folder, '--resume', processes=2)
        assert starter.end() == code, starter.log.read_text()
    check_equal(result(whole), result(parts))
    states = result(whole)['resume_state']['states']
    assert len(states) == 2
    assert not torch.equal(states[0]['torch'], states[1]['torch'])

"""train.py and test.py with mmengine's other runner and its strategies."""

import re

import pytest
import torch

from mmmobilemamba.checkpoints.checkpoint import read_checkpoint

pytest.importorskip('mmpretrain')
FLEXIBLE = [
    '--cfg-options',
    'runner_type=FlexibleRunner',
    'strategy.type=SingleDeviceStrategy',
]


def test_trains_resumes_and_tests(workspace, tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = [str(workspace / 'cls.py'), '--work-dir', 'run']
    tool('train').main([*args, *FLEXIBLE])
    more = ['--resume', *FLEXIBLE, 'train_cfg.max_epochs=2']
    tool('train').main([*args, *more])
    log = max(tmp_path.glob('run/*/*.log')).read_text()
    assert 'resumed epoch: 1, iter: 2' in log
    # The same weights in mmengine's usual one.
    last = tmp_path / 'run' / 'epoch_2.pth'
    assert read_checkpoint(last)['meta']['epoch'] == 2
    scores = []
    for options in (FLEXIBLE, []):
        tool('test').main([args[0], str(last), '--deploy', *options])
        logs = tmp_path.glob('work_dirs/cls/*/*.log')
        log = max(logs, key=lambda x: x.stat().st_mtime).read_text()
        scores.append(re.findall(r'accuracy/top1: ([\d.]+)', log)[-1])
    assert scores[0] == scores[1]
    # From those weights, and not from a foreign file.
    tool('train').main([*args, *FLEXIBLE, f'load_from={last}'])
    torch.save(dict(state_dict={'a.b': torch.ones(2)}), 'foreign.pth')
    with pytest.raises(SystemExit):
        tool('train').main([*args, *FLEXIBLE, 'load_from=foreign.pth'])

"""A training as a process of its own: run, resumed, refused."""

import sys

import pytest
from mmengine.config import Config

from mmmobilemamba.apis.training import run_training, write_training_config

# Stands for tools/train.py: fails the first time, and then goes on.
TOOL = """
import sys
from pathlib import Path
config, *more = sys.argv[1:]
assert more == ['--resume']
folder = Path(config).parent / 'run'
folder.mkdir(exist_ok=True)
if not (folder / 'began').exists():
    (folder / 'began').touch()
    sys.exit(3)
(folder / 'epoch_2.pth').touch()
"""


@pytest.fixture
def training(tmp_path):
    cfg = Config(dict(work_dir=f'{tmp_path}/run', train_cfg={'max_epochs': 2}))
    path, tool = tmp_path / 'config.py', tmp_path / 'tool.py'
    write_training_config(cfg, path)
    tool.write_text(TOOL)
    return cfg, path, tool


def test_goes_on_where_it_was_stopped(training, monkeypatch):
    _, path, tool = training
    with pytest.raises(ChildProcessError, match='status 3'):
        run_training(path, tool)
    done = run_training(path, tool)
    assert done.checkpoint.is_file() and done.seconds > 0
    # A finished one is not trained again, nor does its time change.
    monkeypatch.setattr(sys, 'executable', 'no-python')
    assert run_training(path, tool) == done


def test_checkpoints_of_other_settings_are_refused(training):
    cfg, path, _ = training
    cfg.train_cfg.max_epochs = 3
    write_training_config(cfg, path)  # nothing trained yet
    (path.parent / 'run').mkdir()
    (path.parent / 'run' / 'epoch_1.pth').touch()
    write_training_config(cfg, path)
    cfg.train_cfg.max_epochs = 2
    with pytest.raises(ValueError, match=str(path)):
        write_training_config(cfg, path)

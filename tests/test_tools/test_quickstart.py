"""The quickstart with few scenes and steps."""

import importlib.util
import json
import subprocess
import sys

import cv2
import pytest

for library in ('mmdet', 'mmseg'):
    pytest.importorskip(library)


@pytest.fixture(scope='module')
def run(repo, tmp_path_factory):
    """Give a function that runs the tool in a folder that the tests share."""
    out = tmp_path_factory.mktemp('quickstart') / 'out'

    def call(*arguments):
        tool = repo / 'tools' / 'quickstart.py'
        return out, subprocess.run(
            [sys.executable, tool, '--smoke', '--out', out, *arguments],
            capture_output=True,
            text=True,
        )

    return call


@pytest.fixture(scope='module')
def finished(run):
    out, done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done


@pytest.fixture
def quickstart(repo):
    path = repo / 'tools' / 'quickstart.py'
    spec = importlib.util.spec_from_file_location('quickstart_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_metrics_of_both_tasks(finished):
    out, done = finished
    summary = json.loads((out / 'summary.json').read_text())
    names = dict(
        detection={'box AP50', 'box AP', 'mask AP50', 'mask AP'},
        segmentation={'mIoU', 'mAcc', 'aAcc'},
    )
    for task, expected in names.items():
        for which in ('trained', 'untrained'):
            assert set(summary[task][which]) == expected
            assert all(0 <= v <= 1 for v in summary[task][which].values())
        assert f'{task} (trained in' in done.stdout
    assert summary['train_seconds'] > 0


@pytest.mark.slow
def test_files_are_where_it_says(finished):
    out, done = finished
    files = json.loads((out / 'summary.json').read_text())['files']
    for path in sum(files.values(), []):
        assert path in done.stdout
    assert len(files['checkpoints']) == 2
    for path in files['pictures'] + files['curves']:
        picture = cv2.imread(path)
        # a page without anything on it has one colour
        assert picture.std() > 5


@pytest.mark.slow
def test_finished_training_is_taken_as_it_is(
    finished, quickstart, monkeypatch
):
    out, _ = finished

    def fail(*args, **kwargs):
        raise AssertionError('trains again')

    monkeypatch.setattr(subprocess, 'run', fail)
    for config in sorted((out / 'configs').iterdir()):
        done = quickstart.run_training(config, 'no tool')
        assert done.checkpoint.is_file()
        assert done.seconds > 0


@pytest.mark.slow
def test_another_seed_needs_another_folder(finished, run):
    _, done = run('--seed', '1')
    assert done.returncode != 0
    assert 'seed is 0, asked for 1' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_checkpoints_of_other_settings_are_refused(finished, quickstart):
    out, _ = finished
    args = quickstart.parse_args(['--smoke', '--out', str(out)])
    for task, name in quickstart.CONFIGS.items():
        path = out / 'configs' / name
        before = path.read_text()
        assert quickstart.write_config(task, args, out / 'shapes') == path
        assert path.read_text() == before
        path.write_text(before.replace('max_epochs=2', 'max_epochs=3'))
        with pytest.raises(ValueError, match='other settings'):
            quickstart.write_config(task, args, out / 'shapes')
        path.write_text(before)


def test_negative_seed(quickstart, capsys):
    with pytest.raises(SystemExit):
        quickstart.parse_args(['--seed', '-1'])
    assert '--seed must be 0 or more, got -1' in capsys.readouterr().err

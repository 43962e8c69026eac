"""The tool that runs the tests with other versions."""

import importlib.util
import sys
from itertools import product

import pytest


@pytest.fixture(scope='module')
def tool(repo):
    path = repo / 'tools' / 'misc' / 'check_versions.py'
    spec = importlib.util.spec_from_file_location('check_versions', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_lines_hold_each_python_and_every_pair(tool):
    lines = [line for line in tool.LINES if not line.forks]
    assert {line.python for line in lines} == {'3.10', '3.11', '3.12'}
    pairs = {(line.numpy[0], line.torch) for line in lines}
    assert pairs == set(product('12', ['2.4.1', '2.11.0']))


def test_missing_interpreter_is_in_the_table(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'find_python', lambda version: None)
    name = tool.LINES[0].name
    assert tool.main(['--work-dir', str(tmp_path), '--only', name]) == 1
    table = (tmp_path / 'table.md').read_text()
    assert 'not run: no Python 3.10 with venv' in table


def test_goes_on_where_it_stopped(tool, tmp_path, monkeypatch, capsys):
    ran = []

    def work(name, result=None, fail=False):
        def step(self, *args):
            ran.append(name)
            if fail:
                raise OSError('the disk is full')
            return result

        return step

    steps = tool.Environment
    monkeypatch.setattr(steps, 'make', work('make'))
    monkeypatch.setattr(steps, 'build_mmcv', work('mmcv', fail=True))
    args = ['--work-dir', str(tmp_path), '--only', tool.LINES[0].name]
    assert tool.main(args) == 1
    assert 'the disk is full' in capsys.readouterr().out
    monkeypatch.setattr(steps, 'build_mmcv', work('mmcv'))
    monkeypatch.setattr(steps, 'build_ours', work('ours'))
    monkeypatch.setattr(steps, 'test', work('test', '9 passed; 3 passed'))
    monkeypatch.setattr(tool, 'find_commit', lambda: 'abc1234')
    assert tool.main(args) == 0
    assert tool.main(args) == 0
    assert ran == ['make', 'mmcv', 'mmcv', 'ours', 'test']
    assert '| abc1234 | 9 passed; 3 passed |' in capsys.readouterr().out
    # What is ours is another one: the rest stays.
    monkeypatch.setattr(tool, 'find_commit', lambda: 'def5678')
    assert tool.main(args) == 0
    assert ran[5:] == ['ours', 'test']


@pytest.mark.parametrize(
    ('result', 'clean'),
    [
        ('9 passed, 2 skipped; 3 passed', True),
        ('1 failed, 9 passed; 3 passed', False),
        ('9 passed; 1 error', False),
        ('9 passed, 1 error; 3 passed', False),
        ('9 passed; no tests ran', False),
    ],
)
def test_a_failed_test_is_the_exit_code(
    tool, tmp_path, monkeypatch, result, clean
):
    for name in ('make', 'build_mmcv', 'build_ours'):
        monkeypatch.setattr(tool.Environment, name, lambda self: None)
    monkeypatch.setattr(tool.Environment, 'test', lambda *args: result)
    names = [line.name for line in tool.LINES[:2]]
    args = ['--work-dir', str(tmp_path), '--only', names[0]]
    assert tool.main(args) == (0 if clean else 1)
    # A line that was run before stays in the table.
    monkeypatch.setattr(tool.Environment, 'test', lambda *args: '2 passed')
    assert tool.main([*args[:3], names[1]]) == 0
    assert f'| {result} |' in (tmp_path / 'table.md').read_text()


def test_what_is_chosen_is_there(tool, repo):
    for name in tool.CHOSEN:
        assert (repo / name).exists()


def test_interpreter_of_another_version_is_not_taken(tool, monkeypatch):
    monkeypatch.setattr(tool.shutil, 'which', lambda name: sys.executable)
    monkeypatch.setenv('PYENV_ROOT', '/nowhere')
    version = f'{sys.version_info[0]}.{sys.version_info[1]}'
    assert tool.find_python(version) == sys.executable
    assert tool.find_python('3.999') is None

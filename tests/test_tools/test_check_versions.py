"""The tool that runs the tests with other versions."""

import importlib.util
import subprocess
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
    monkeypatch.setattr(steps, 'test', work('test', '9 passed'))
    monkeypatch.setattr(tool, 'find_commit', lambda: 'abc1234')
    monkeypatch.setattr(tool, 'find_files', lambda *places: 'files')
    assert tool.main(args) == 0
    assert tool.main(args) == 0
    assert ran == ['make', 'mmcv', 'mmcv', 'ours', 'test', 'test']
    assert '| abc1234 | 9 passed; 9 passed |' in capsys.readouterr().out
    # What is ours is another one: the rest stays, the extension with it.
    monkeypatch.setattr(tool, 'find_commit', lambda: 'def5678')
    assert tool.main(args) == 0
    assert ran[6:] == ['ours', 'test']
    monkeypatch.setattr(tool, 'find_files', lambda *places: 'others')
    assert tool.main(args) == 0
    assert ran[8:] == ['test']


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
    counts = iter(result.split('; '))
    monkeypatch.setattr(tool.Environment, 'test', lambda *args: next(counts))
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


@pytest.fixture
def checkout(tool, tmp_path, monkeypatch):
    """Give a small checkout in the place of ours, and a way to commit."""

    def commit(**texts):
        for name, text in texts.items():
            path = tmp_path / 'ext' / 'selective_scan' / name / 'file.py'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        who = ('-c', 'user.name=a', '-c', 'user.email=a@b.c')
        for step in (['add', '.'], [*who, 'commit', '-qm', 'change']):
            subprocess.run(['git', '-C', tmp_path, *step], check=True)

    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    commit(csrc='1', selective_scan='1', tests='1')
    return tmp_path, commit


def test_extension_is_known_by_what_it_is_made_of(tool, checkout):
    folder, commit = checkout
    first, of = tool.find_files(*tool.SOURCES), tool.find_commit()
    commit(tests='2')
    assert tool.find_files(*tool.SOURCES) == first
    assert tool.find_commit() != of
    names = {first}
    for part in ('csrc', 'selective_scan'):
        commit(**{part: '2'})
        names.add(tool.find_files(*tool.SOURCES))
    assert len(names) == 3
    added = folder / 'ext' / 'selective_scan' / 'csrc' / 'added.h'
    added.write_text('')
    assert tool.find_files(*tool.SOURCES).endswith(tool.CHANGES)


def test_without_git_nothing_is_taken_for_the_same(tool, checkout):
    folder, _ = checkout
    (folder / '.git').rename(folder / 'elsewhere')
    for found in (tool.find_commit(), tool.find_files(*tool.SOURCES)):
        assert found.endswith(tool.CHANGES)


def test_extension_is_compiled_once_for_its_sources(
    tool, checkout, monkeypatch, tmp_path
):
    compiled = []

    def pip(self, command, *arguments):
        if command == 'wheel':
            folder = arguments[arguments.index('-w') + 1]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'extension.whl').write_text('')
            compiled.append(folder)

    monkeypatch.setattr(tool.Environment, 'pip', pip)
    environment = tool.Environment(tool.LINES[0], tmp_path / 'work', 1)

    def build():
        environment.build_ours()
        return len(compiled)

    _, commit = checkout
    assert build() == build() == 1
    commit(tests='2')
    assert build() == 1
    commit(csrc='2')
    assert build() == 2
    source = tmp_path / 'ext' / 'selective_scan' / 'csrc' / 'file.py'
    source.write_text('3')
    assert build() == 3
    assert build() == 4

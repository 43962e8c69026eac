"""Run the fast tests with other versions of Python, numpy and torch.

Makes an environment for each line of ``LINES`` below the work directory,
compiles mmcv and the scan extension for it, runs the tests and writes a table.
What ended is not done again, so that it can be stopped and started; the
tests are done again where the commit is another one, the extension and its
tests where their files are. A folder of wheels keeps what was compiled. Takes
some 40 minutes of CPU and 6 GB for each line; ``CFLAGS=-O0 CXXFLAGS=-O0``
makes the most of that, compiling mmcv, shorter, and leaves the extension as
fast as it is.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[2]
TORCHVISION = {'2.4.1': '0.19.1', '2.11.0': '0.26.0'}
ORIGINALS = ('mmengine==0.10.7', 'mmdet==3.3.0') + (
    'mmsegmentation==1.2.2',
    'mmpretrain==1.2.0',
)
FORKS = ('onedl-mmengine==0.10.12', 'onedl-mmdetection==3.5.1') + (
    'onedl-mmsegmentation==1.4.2',
    'onedl-mmpretrain==1.3.6',
)


CHANGES = ' and changes'
# The steps that run them: of the package, and of the extension.
TESTS = ('tests', 'tests of the extension')
EXTENSION = 'ext/selective_scan'
# What a wheel of it is made of.
SOURCES = tuple(
    f'{EXTENSION}/{name}'
    for name in ('csrc', 'pyproject.toml', 'selective_scan', 'setup.py')
)


@dataclass(frozen=True)
class Line:
    """One environment."""

    python: str
    numpy: str
    torch: str
    forks: bool = False

    @property
    def name(self) -> str:
        """Name of its folder and of its row."""
        kind = 'onedl' if self.forks else 'openmmlab'
        return f'py{self.python}-numpy{self.numpy}-torch{self.torch}-{kind}'

    @property
    def mmcv(self) -> str:
        """What is compiled from its source."""
        return 'onedl-mmcv==2.3.6' if self.forks else 'mmcv==2.1.0'

    @property
    def build(self) -> str:
        """Name of what its wheels fit."""
        return f'py{self.python}-torch{self.torch}'


# Every pair of numpy and torch, and each Python; then the forks.
LINES = (
    Line('3.10', '1.26.4', '2.4.1'),
    Line('3.12', '2.2.6', '2.4.1'),
    Line('3.12', '1.26.4', '2.11.0'),
    Line('3.11', '2.4.6', '2.11.0'),
    Line('3.11', '2.2.6', '2.11.0', forks=True),
)


# Tests of each part of the package that hang on the versions beneath it, in
# a fraction of the time of all fast ones; --all runs those.
CHOSEN = (
    'tests/test_models/test_backbones',
    'tests/test_models/test_classifiers',
    'tests/test_models/test_layers',
    'tests/test_models/test_necks',
    'tests/test_models/test_wrong_classifiers.py',
    'tests/test_models/test_wrong_configs.py',
    'tests/test_configs/test_configs.py',
    'tests/test_datasets',
    'tests/test_engine/test_hooks.py',
    'tests/test_engine/test_layer_decay.py',
    'tests/test_engine/test_optim_wrapper.py',
    'tests/test_engine/test_safe_checkpoint.py',
    'tests/test_integration/test_runner.py',
    'tests/test_analysis/test_complexity.py',
    'tests/test_deploy/test_export.py',
    'tests/test_ops',
    'tests/test_tools/test_runs.py',
    'tests/test_checkpoints/test_checkpoint.py',
    'tests/test_checkpoints/test_forks.py',
    'tests/test_checkpoints/test_wrong_checkpoints.py',
)


def ask_git(*arguments: str) -> str | None:
    """Return what git prints of the checkout, or None where it fails."""
    done = subprocess.run(
        ['git', '-C', str(ROOT), *arguments], capture_output=True, text=True
    )
    return None if done.returncode else done.stdout.strip()


def find_commit() -> str:
    """Return the commit of the checkout, marked where files differ from it."""
    commit = ask_git('rev-parse', '--short', 'HEAD')
    changes = ask_git('status', '--porcelain', '--untracked-files=no')
    if commit is None or changes is None:
        return 'unknown' + CHANGES
    return commit + (CHANGES if changes else '')


def find_files(*places: str) -> str:
    """Return a name of the files in some places, marked as a commit is.

    Another commit gives the same name unless it changes those files.
    """
    files = ask_git('ls-tree', '-r', 'HEAD', *places)
    changes = ask_git('status', '--porcelain', *places)
    if not files or changes is None:
        return 'unknown' + CHANGES
    name = hashlib.sha256(files.encode()).hexdigest()[:10]
    return name + (CHANGES if changes else '')


def find_python(version: str) -> str | None:
    """Return an interpreter of a version that can make environments."""
    places = [shutil.which(f'python{version}')]
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv'))
    places += sorted(map(str, pyenv.glob(f'versions/{version}.*/bin/python')))
    probe = (
        'import ensurepip, sys, venv; '
        f'sys.exit("%d.%d" % sys.version_info[:2] != "{version}")'
    )
    for place in filter(None, places):
        done = subprocess.run([place, '-c', probe], capture_output=True)
        if done.returncode == 0:
            return place
    return None


class Environment:
    """The environment of a line, and how far it has come.

    Args:
        line (Line): What to install.
        folder (Path): Folder of all environments.
        jobs (int): Compilers that run at a time.
        commit (str): Commit of the checkout. Defaults to ''.
    """

    def __init__(
        self, line: Line, folder: Path, jobs: int, commit: str = ''
    ) -> None:
        self.line = line
        self.commit = commit
        self.wheels = folder / 'wheels' / line.build
        self.our_wheels = folder / 'wheels' / f'torch{line.torch}'
        self.folder = folder / line.name
        self.python = self.folder / 'env' / 'bin' / 'python'
        self.log = self.folder / 'log.txt'
        self.state = self.folder / 'state.json'
        self.settings = dict(
            MAX_JOBS=str(jobs),
            MMCV_WITH_OPS='1',
            FORCE_CUDA='0',
            CUDA_VISIBLE_DEVICES='',
            OMP_NUM_THREADS='1',
            PIP_NO_INPUT='1',
            # Ready wheels elsewhere may be for another torch.
            PIP_FIND_LINKS='',
            PATH=f'{self.python.parent}:{os.environ["PATH"]}',
        )

    def done(self) -> dict:
        """Return the steps that ended, with what came of each."""
        if not self.state.is_file():
            return {}
        return json.loads(self.state.read_text(encoding='utf-8'))

    def step(self, name: str, work, of: str = '') -> None:
        """Do a step that has not ended before.

        Args:
            name (str): Name of the step.
            work (Callable): Does it; returns what came of it, or None.
            of (str): Commit that it is for, where it is for one. It is done
                again for another, and for what is no commit. Defaults to ''.
        """
        done = self.done()
        if done.get(name, {}).get('of') == of and CHANGES not in of:
            return
        print(f'{self.line.name}: {name}', flush=True)
        began = time.monotonic()
        result = work() or 'done'
        minutes = round((time.monotonic() - began) / 60, 1)
        done[name] = dict(result=result, minutes=minutes, of=of)
        with atomic_write(self.state) as draft:
            draft.write_text(json.dumps(done, indent=1), encoding='utf-8')

    def run(self, *command: str | Path, check: bool = True) -> str:
        """Run a command with its output in the log; return that output."""
        self.folder.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | self.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with open(self.log, 'a', encoding='utf-8') as log:
            log.write(f'$ {" ".join(map(str, command))}\n{result.stdout}\n')
        if check and result.returncode:
            last = result.stdout.strip().rpartition('\n')[2]
            raise OSError(f'{command[0]} failed: {last} (see {self.log})')
        return result.stdout

    def pip(self, *arguments: str | Path) -> str:
        return self.run(self.python, '-m', 'pip', *arguments)

    def make(self) -> None:
        """Make the environment, without mmcv and what is ours."""
        line = self.line
        python = find_python(line.python)
        if python is None:
            raise FileNotFoundError(f'no Python {line.python} with venv')
        self.run(python, '-m', 'venv', '--clear', self.folder / 'env')
        pins = [f'torch=={line.torch}', f'numpy=={line.numpy}']
        pins.append(f'torchvision=={TORCHVISION[line.torch]}')
        self.pip('install', 'setuptools==81.0.0', 'wheel', 'ninja', *pins)
        hosts = FORKS if line.forks else ORIGINALS
        wanted = ['numpy', 'packaging', 'ftfy', 'lmdb', 'regex', 'timm']
        for name in ('deploy', 'tests'):
            wanted += ['-r', f'requirements/{name}.txt']
        self.pip('install', *wanted, *pins, *hosts, 'setuptools==81.0.0')
        self.pip('install', '--no-deps', 'openmim==0.3.9')

    def build_mmcv(self) -> None:
        """Compile mmcv, or take the wheel that was compiled before."""
        self.pip(
            *('wheel', '--no-deps', '--no-build-isolation'),
            *('--find-links', self.wheels, '--wheel-dir', self.wheels),
            self.line.mmcv,
        )
        self.pip(
            *('install', '--no-deps', '--no-index', '--force-reinstall'),
            *('--find-links', self.wheels, self.line.mmcv),
        )

    def build_ours(self) -> None:
        """Compile the extension and install the package.

        A wheel of the extension is for one torch and every Python.
        """
        sources = find_files(*SOURCES)
        folder = self.our_wheels / sources.replace(' ', '-')
        if CHANGES in sources or not any(folder.glob('*.whl')):
            ours = ('--no-deps', '--no-build-isolation')
            self.pip('wheel', *ours, '-w', folder, f'./{EXTENSION}')
        wheel = next(folder.glob('*.whl'))
        self.pip('install', '--no-deps', '--force-reinstall', wheel)
        self.pip(
            *('install', '--no-deps', '--no-build-isolation'),
            *('--editable', '.'),
        )

    def test(self, places: Sequence[str], arguments: Sequence[str]) -> str:
        """Run tests; return pytest's counts."""
        command = (self.python, '-m', 'pytest', '-q', '-W', 'ignore')
        output = self.run(
            *(*command, *places, '-m', 'not slow', *arguments), check=False
        )
        counts = output.strip().rpartition('\n')[2]
        return re.sub(r' in [\d.]+s.*', '', counts)

    def tested(self) -> tuple[str, str, str]:
        """Return the commit, the counts and the minutes of both tests."""
        done = self.done()
        steps = [done[name] for name in TESTS if name in done]
        if not steps:
            return '', 'not run', ''
        minutes = round(sum(step['minutes'] for step in steps), 1)
        counts = '; '.join(step['result'] for step in steps)
        return steps[0]['of'], counts, str(minutes)


def run_line(
    environment: Environment, chosen: Sequence[str], arguments: Sequence[str]
) -> str:
    """Bring a line to its end; return why it did not come there, or ''."""
    commit = environment.commit
    try:
        environment.step('environment', environment.make)
        environment.step('mmcv', environment.build_mmcv)
        environment.step('ours', environment.build_ours, commit)
        environment.step(
            TESTS[0], lambda: environment.test(chosen, arguments), commit
        )
        environment.step(
            TESTS[1],
            lambda: environment.test([f'{EXTENSION}/tests'], arguments),
            find_files(EXTENSION),
        )
    except OSError as error:
        return f'not run: {error}'
    return ''


def write_table(
    environments: Sequence[Environment], reasons: dict[Line, str], path: Path
) -> None:
    """Write what came of each line, in this run or before, as a table."""
    heads = ('Python', 'numpy', 'torch', 'libraries', 'commit', 'tests')
    heads += ('minutes of the tests',)
    rows = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for environment in environments:
        line = environment.line
        kind = 'onedl forks' if line.forks else 'OpenMMLab'
        commit, counts, minutes = environment.tested()
        counts = reasons.get(line) or counts
        cells = (line.python, line.numpy, line.torch, kind, commit)
        cells += (counts, minutes)
        rows.append(f'| {" | ".join(cells)} |')
    with atomic_write(path) as draft:
        draft.write_text('\n'.join(rows) + '\n', encoding='utf-8')


def is_clean(result: str) -> bool:
    """Tell whether tests ran and none of them failed."""
    parts = result.split('; ')
    return all(re.match(r'\d+ passed', part) for part in parts) and not (
        re.search('failed|error', result)
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/versions')
    )
    parser.add_argument(
        '--only',
        nargs='+',
        choices=[line.name for line in LINES],
        default=[line.name for line in LINES],
        help='environments to run, by default all',
    )
    parser.add_argument(
        '--jobs', type=int, default=os.cpu_count(), help='compilers at a time'
    )
    parser.add_argument(
        '--all',
        action='store_true',
        help='run all fast tests, not only those that hang on versions',
    )
    parser.add_argument(
        'pytest', nargs='*', help='further arguments of pytest, after --'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    chosen = ('tests',) if args.all else CHOSEN
    clean = True
    with user_errors(parser):
        folder, commit = args.work_dir.absolute(), find_commit()
        table = folder / 'table.md'
        environments = [
            Environment(line, folder, args.jobs, commit) for line in LINES
        ]
        reasons = {}
        for environment in environments:
            line = environment.line
            if line.name not in args.only:
                continue
            reasons[line] = run_line(environment, chosen, args.pytest)
            write_table(environments, reasons, table)
            clean &= not reasons[line] and is_clean(environment.tested()[1])
    print(table.read_text(encoding='utf-8'))
    return 0 if clean else 1


if __name__ == '__main__':
    sys.exit(main())

"""Run the fast tests with other versions of Python, numpy and torch.

Makes an environment for each line of ``LINES`` below the work directory,
compiles mmcv and the scan extension for it, runs the tests and writes a table.
What ended is not done again, so that it can be stopped and started; a folder
of wheels keeps what was compiled. Takes some 40 minutes of CPU and 6 GB for
each line.
"""

import argparse
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

from mmmobilemamba.utils.cli import user_errors
from mmmobilemamba.utils.files import whole_file

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
    """

    def __init__(self, line: Line, folder: Path, jobs: int) -> None:
        self.line = line
        self.wheels = folder / 'wheels' / line.build
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

    def step(self, name: str, work) -> None:
        """Do a step that has not ended before."""
        done = self.done()
        if name in done:
            return
        print(f'{self.line.name}: {name}', flush=True)
        began = time.monotonic()
        result = work() or 'done'
        done[name] = result
        done[f'{name} minutes'] = round((time.monotonic() - began) / 60, 1)
        with whole_file(self.state) as draft:
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
        """Compile the extension and install the package."""
        ours = ('install', '--no-deps', '--no-build-isolation')
        self.pip(*ours, './ext/selective_scan')
        self.pip(*ours, '--editable', '.')

    def test(self, arguments: Sequence[str]) -> str:
        """Run the tests; return pytest's counts."""
        command = (self.python, '-m', 'pytest', '-q', '-W', 'ignore')
        counts = []
        for folder in ('tests', 'ext/selective_scan/tests'):
            output = self.run(
                *command, folder, '-m', 'not slow', *arguments, check=False
            )
            counts.append(output.strip().rpartition('\n')[2])
        return '; '.join(re.sub(r' in [\d.]+s.*', '', c) for c in counts)


def run_line(
    line: Line, folder: Path, jobs: int, arguments: Sequence[str]
) -> str:
    """Bring a line to its end; return what came of it."""
    environment = Environment(line, folder, jobs)
    try:
        environment.step('environment', environment.make)
        environment.step('mmcv', environment.build_mmcv)
        environment.step('ours', environment.build_ours)
        environment.step('tests', lambda: environment.test(arguments))
    except OSError as error:
        return f'not run: {error}'
    return environment.done()['tests']


def write_table(results: dict[Line, str], path: Path) -> None:
    """Write what came of each line as a table."""
    rows = ['| Python | numpy | torch | libraries | tests |', '|---' * 5 + '|']
    for line, result in results.items():
        kind = 'onedl forks' if line.forks else 'OpenMMLab'
        cells = (line.python, line.numpy, line.torch, kind, result)
        rows.append(f'| {" | ".join(cells)} |')
    with whole_file(path) as draft:
        draft.write_text('\n'.join(rows) + '\n', encoding='utf-8')


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
        'pytest', nargs='*', help='further arguments of pytest, after --'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    results = {}
    with user_errors(parser):
        folder = args.work_dir.absolute()
        for line in LINES:
            if line.name in args.only:
                results[line] = run_line(line, folder, args.jobs, args.pytest)
                write_table(results, folder / 'table.md')
    print((folder / 'table.md').read_text(encoding='utf-8'))
    clean = re.compile(r'\d+ passed[^;]*')
    for result in results.values():
        parts = result.split('; ')
        if 'failed' in result or not all(map(clean.match, parts)):
            return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

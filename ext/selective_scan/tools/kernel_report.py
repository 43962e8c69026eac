"""Compile the CUDA sources for sm_80, sm_90 and PTX, warnings as errors.

Nothing is run and no GPU is needed. What has not changed since it last
compiled is not compiled again.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parent.parent
TARGETS = [
    '-gencode=arch=compute_80,code=sm_80',
    '-gencode=arch=compute_90,code=sm_90',
    '-gencode=arch=compute_90,code=compute_90',
]


def find_nvcc():
    """Return the path of nvcc, or None."""
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    return shutil.which('nvcc') or shutil.which(f'{home}/bin/nvcc')


def digest(command, sources):
    """Hash a command and all the sources that it may read."""
    state = hashlib.sha256(f'{command} {torch.__version__}'.encode())
    for source in sources:
        state.update(source.read_bytes())
    return state.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--cache',
        type=Path,
        default=ROOT / 'build' / 'check_cuda',
        help='folder for the compiled objects',
    )
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        sys.exit('nvcc is not found: set CUDA_HOME to the CUDA toolkit.')
    version = subprocess.run(
        [nvcc, '--version'], check=True, capture_output=True, text=True
    ).stdout
    args.cache.mkdir(parents=True, exist_ok=True)
    flags = ['-std=c++17', '-O3', *TARGETS, '-Werror', 'all-warnings']
    flags += ['-Xcompiler', '-Wall,-Wextra']
    for path in include_paths():
        flags += ['-isystem', path]
    folders = (ROOT / 'csrc' / 'cuda', ROOT / 'csrc' / 'common')
    headers = sorted(
        path
        for folder in folders
        for path in folder.iterdir()
        if path.suffix in ('.h', '.cuh')
    )
    for source in sorted(folders[0].glob('*.cu')):
        target = args.cache / f'{source.stem}.o'
        command = [nvcc, *flags, '-c', str(source), '-o', str(target)]
        mark = target.with_suffix('.sha256')
        key = digest(f'{version} {command}', [source, *headers])
        if target.exists() and mark.exists() and mark.read_text() == key:
            print(f'{source.name}: unchanged')
            continue
        done = subprocess.run(command, capture_output=True, text=True)
        sys.stdout.write(done.stdout + done.stderr)
        if done.returncode != 0:
            sys.exit(f'{source.name} does not compile cleanly.')
        mark.write_text(key)
        print(f'{source.name}: compiled')


if __name__ == '__main__':
    main()

"""Build selective_scan with the CPU kernels, and with CUDA's where it can."""

import os
import platform
import subprocess
from pathlib import Path

import torch
from packaging.version import Version
from setuptools import setup
from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent


def sources(*folders, suffix):
    """List the sources of some folders of csrc, as setuptools wants them."""
    return sorted(
        str(path.relative_to(HERE))
        for folder in folders
        for path in (HERE / 'csrc' / folder).glob(f'*{suffix}')
    )


def nvcc_version():
    """Return the version of nvcc, or None where there is none."""
    home = cpp_extension.CUDA_HOME
    if home is None:
        return None
    try:
        text = subprocess.run(
            [os.path.join(home, 'bin', 'nvcc'), '--version'],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return Version(text.split(', release ')[1].split(',')[0])


def with_cuda():
    """Decide whether to build the CUDA kernels.

    Returns:
        bool: True where nvcc is found and a GPU is visible. The environment
        variable FORCE_CUDA=1 asks for CUDA without a GPU, FORCE_CUDA=0 for
        the CPU alone.

    Raises:
        SystemExit: FORCE_CUDA=1 without nvcc, or nvcc and torch disagree on
            CUDA's version.
    """
    forced = os.environ.get('FORCE_CUDA', '')
    if forced not in ('', '0', '1'):
        raise SystemExit(f"FORCE_CUDA must be '0' or '1', got {forced!r}.")
    if forced == '0':
        return False
    version = nvcc_version()
    if forced != '1' and (version is None or not torch.cuda.is_available()):
        return False
    if version is None:
        raise SystemExit(
            'FORCE_CUDA=1 needs nvcc: set CUDA_HOME to the CUDA toolkit.'
        )
    if torch.version.cuda is None:
        raise SystemExit(
            'This torch is built without CUDA: install a CUDA build of torch, '
            'or set FORCE_CUDA=0 to build for the CPU alone.'
        )
    wanted = Version(torch.version.cuda)
    if version.major != wanted.major:
        raise SystemExit(
            f'nvcc is {version} and torch was built with CUDA {wanted}: point '
            f'CUDA_HOME to a CUDA {wanted.major}.x toolkit, install a torch '
            f'built with CUDA {version.major}, or set FORCE_CUDA=0.'
        )
    return True


def extension():
    """Describe the one extension module."""
    windows = platform.system() == 'Windows'
    cxx = ['/O2', '/std:c++17', '/EHsc'] if windows else ['-O3', '-std=c++17']
    link = []
    if platform.system() == 'Linux':
        # at::parallel_for is serial in a file compiled without it.
        cxx.append('-fopenmp')
        link.append('-fopenmp')
    elif windows:
        cxx.append('/openmp')
    files = sources('', 'cpu', 'autocast', suffix='.cpp')
    macros = [('Py_LIMITED_API', '0x030A0000')]
    options = dict(
        name='selective_scan._C',
        define_macros=macros,
        extra_link_args=link,
        py_limited_api=True,
    )
    if not with_cuda():
        return cpp_extension.CppExtension(
            sources=files, extra_compile_args={'cxx': cxx}, **options
        )
    return cpp_extension.CUDAExtension(
        sources=files + sources('cuda', suffix='.cu'),
        extra_compile_args={'cxx': cxx, 'nvcc': ['-O3', '-std=c++17']},
        **options,
    )


setup(
    ext_modules=[extension()],
    cmdclass={'build_ext': cpp_extension.BuildExtension},
    options={'bdist_wheel': {'py_limited_api': 'cp310'}},
)

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


def ask_nvcc(option):
    """Return what nvcc prints, or None where there is no nvcc."""
    home = cpp_extension.CUDA_HOME
    if home is None:
        return None
    try:
        return subprocess.run(
            [os.path.join(home, 'bin', 'nvcc'), option],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def nvcc_version():
    """Return the version of nvcc, or None where there is none."""
    text = ask_nvcc('--version')
    if text is None:
        return None
    return Version(text.split(', release ')[1].split(',')[0])


def architecture_flags():
    """Return nvcc's flags for the GPUs to build for.

    Code of the lowest minor version runs on the rest of its major version,
    and PTX of the newest one on what comes after it.

    Returns:
        list[str]: Empty where TORCH_CUDA_ARCH_LIST says it instead.
    """
    if os.environ.get('TORCH_CUDA_ARCH_LIST'):
        return []
    names = (ask_nvcc('--list-gpu-arch') or '').split()
    known = sorted(
        int(name.removeprefix('compute_'))
        for name in names
        if name.removeprefix('compute_').isdigit()
    )
    known = [number for number in known if number >= 70]
    lowest = {}
    for number in known:
        lowest.setdefault(number // 10, number)
    flags = [
        f'-gencode=arch=compute_{number},code=sm_{number}'
        for number in lowest.values()
    ]
    if known:
        newest = f'compute_{known[-1]}'
        flags.append(f'-gencode=arch={newest},code={newest}')
    return flags


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
    # Debug symbols, which Python's own flags ask for, take half of the time.
    cxx, link = ['-O2', '-g0', '-std=c++17'], []
    if platform.system() == 'Linux':
        # at::parallel_for is serial in a file compiled without it.
        cxx.append('-fopenmp')
        link.append('-fopenmp')
    if os.environ.get('SELECTIVE_SCAN_SANITIZE') == '1':
        sanitize = ['-fsanitize=address,undefined']
        cxx += sanitize + ['-O1', '-g', '-fno-sanitize-recover=undefined']
        link += sanitize
    files = sources('', 'cpu', 'inference', suffix='.cpp')
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
    nvcc = ['-O3', '-std=c++17', *architecture_flags()]
    return cpp_extension.CUDAExtension(
        sources=files
        + sources('cuda', suffix='.cpp')
        + sources('cuda', suffix='.cu'),
        extra_compile_args={'cxx': cxx, 'nvcc': nvcc},
        **options,
    )


setup(
    ext_modules=[extension()],
    cmdclass={'build_ext': cpp_extension.BuildExtension},
    options={'bdist_wheel': {'py_limited_api': 'cp310'}},
)

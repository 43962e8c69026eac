"""Build selective_scan with the CPU kernels, and with CUDA's where it can."""

import os
import platform
import re
import subprocess
from pathlib import Path

import torch
from setuptools import setup
from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent


def sources(*folders):
    """List the sources of some folders of csrc, as setuptools wants them."""
    return sorted(
        str(path.relative_to(HERE))
        for folder in folders
        for path in (HERE / 'csrc' / folder).iterdir()
        if path.suffix in ('.cpp', '.cu')
    )


def architecture_flags():
    """Return nvcc's flags for the GPUs to build for.

    Code of the lowest minor version runs on the rest of its major version,
    and PTX of the newest one on what comes after it.

    Returns:
        list[str]: Empty where TORCH_CUDA_ARCH_LIST says it instead.
    """
    if os.environ.get('TORCH_CUDA_ARCH_LIST'):
        return []
    nvcc = os.path.join(cpp_extension.CUDA_HOME, 'bin', 'nvcc')
    names = subprocess.check_output([nvcc, '--list-gpu-arch'], text=True)
    known = sorted(int(n) for n in re.findall(r'compute_(\d+)\b', names))
    known = [number for number in known if number >= 70]
    lowest = {number // 10: number for number in reversed(known)}
    flags = [
        f'-gencode=arch=compute_{number},code=sm_{number}'
        for number in lowest.values()
    ]
    newest = f'compute_{known[-1]}'
    return [*flags, f'-gencode=arch={newest},code={newest}']


def with_cuda():
    """Decide whether to build the CUDA kernels.

    Returns:
        bool: True where CUDA_HOME is found and a GPU is visible. The
        environment variable FORCE_CUDA=1 asks for CUDA without a GPU,
        FORCE_CUDA=0 for the CPU alone. PyTorch's build checks that both have
        one major version of CUDA.

    Raises:
        SystemExit: FORCE_CUDA=1 without a toolkit or a torch for CUDA.
    """
    forced = os.environ.get('FORCE_CUDA', '')
    if forced not in ('', '0', '1'):
        raise SystemExit(f"FORCE_CUDA must be '0' or '1', got {forced!r}.")
    missing = None
    if torch.version.cuda is None:
        missing = 'a torch that was built for CUDA'
    elif cpp_extension.CUDA_HOME is None:
        missing = 'nvcc: set CUDA_HOME to the CUDA toolkit'
    if forced == '1' and missing:
        raise SystemExit(f'FORCE_CUDA=1 needs {missing}.')
    wanted = forced == '1' or (forced == '' and torch.cuda.is_available())
    return wanted and missing is None


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
    files = sources('', 'cpu', 'inference')
    options = dict(
        name='selective_scan._C',
        define_macros=[('Py_LIMITED_API', '0x030A0000')],
        extra_link_args=link,
        py_limited_api=True,
    )
    if not with_cuda():
        return cpp_extension.CppExtension(
            sources=files, extra_compile_args={'cxx': cxx}, **options
        )
    nvcc = ['-O3', '-std=c++17', *architecture_flags()]
    return cpp_extension.CUDAExtension(
        sources=files + sources('cuda'),
        extra_compile_args={'cxx': cxx, 'nvcc': nvcc},
        **options,
    )


setup(
    ext_modules=[extension()],
    cmdclass={'build_ext': cpp_extension.BuildExtension},
    options={'bdist_wheel': {'py_limited_api': 'cp310'}},
)

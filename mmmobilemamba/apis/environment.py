"""What is installed, what is missing, and what mends it."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess

import torch
from packaging.version import Version

from mmmobilemamba import __version__
from mmmobilemamba.ops import (
    ENV_NAME,
    INSTALL_COMMAND,
    find_extension,
    scan_backend,
)

from ..checkpoints.forks import DISTRIBUTIONS, installed_version
from .config import HOST_REQUIREMENTS

_BUILD_MMCV = (
    'pip install "setuptools<82" ninja && MMCV_WITH_OPS=1 {}'
    'pip install --no-build-isolation --force-reinstall --no-deps '
    '--no-binary mmcv mmcv==2.1.0'
)
# Distribution, module and what installs it, in the order of the report.
_PACKAGES = (
    ('torch', 'torch', 'pip install torch'),
    ('torchvision', 'torchvision', 'pip install torchvision==0.26.0'),
    ('numpy', 'numpy', 'pip install numpy'),
    ('opencv-python', 'cv2', 'pip install opencv-python'),
    ('mmengine', 'mmengine', 'pip install mmengine==0.10.7'),
    ('mmcv', 'mmcv', _BUILD_MMCV.format('')),
    ('mmdet', 'mmdet', f'pip install {HOST_REQUIREMENTS["mmdet"]}'),
    (
        'mmsegmentation',
        'mmseg',
        f'pip install {HOST_REQUIREMENTS["mmseg"]} ftfy regex',
    ),
    (
        'mmpretrain',
        'mmpretrain',
        f'pip install {HOST_REQUIREMENTS["mmpretrain"]}',
    ),
    ('pycocotools', 'pycocotools', 'pip install pycocotools'),
)
_EXTENSION = 'mmmobilemamba-selective-scan'


def collect_env() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Look at the installation.

    Returns:
        tuple: What is there, by name, and a list of (fault, command that
        mends it).
    """
    found = _hardware()
    faults = []
    for distribution, module, command in _PACKAGES:
        found[distribution], fault = _package(distribution, module)
        if fault:
            faults.append((fault, command))
    found['mmcv operators'], fault = _mmcv_operators()
    if fault:
        faults.append(fault)
    found['mmmobilemamba'] = __version__
    found[_EXTENSION] = installed_version(_EXTENSION) or 'missing'
    found['scan backend'], fault = _scan()
    if fault:
        faults.append(fault)
    fault = _toolkit_mismatch(found['nvcc'])
    if fault:
        faults.append(fault)
    return found, faults


def cpu_name() -> str:
    """Return the name of the processor, as the system gives it.

    Returns:
        str: Its model, or its architecture where the system tells no more.
    """
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            lines = [x for x in file if x.startswith('model name')]
    except OSError:
        lines = []
    if lines:
        return lines[0].partition(':')[2].strip()
    return platform.processor() or platform.machine()


def _hardware() -> dict[str, str]:
    found = {
        'platform': platform.platform(),
        'Python': platform.python_version(),
        'CPU': cpu_name(),
        'CPU cores': str(os.cpu_count()),
        'threads of torch': str(torch.get_num_threads()),
        'CUDA of torch': torch.version.cuda or 'none, a CPU build',
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f'GPU {index}'] = (
            f'{properties.name}, sm_{properties.major}{properties.minor}, '
            f'{properties.total_memory / 2**30:.0f} GiB'
        )
    if not torch.cuda.is_available():
        found['GPU'] = 'none that torch sees'
    found['nvcc'] = _nvcc() or 'none'
    compiler = os.environ.get('CXX') or 'c++'
    found['C++ compiler'] = _first_line([compiler, '--version']) or 'none'
    return found


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ''
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.partition('\n')[0]


def _nvcc() -> str:
    """Return the version of the toolkit that extensions are built with."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    places = [os.path.join(home, 'bin', 'nvcc')] if home else ['nvcc']
    places.append('/usr/local/cuda/bin/nvcc')
    nvcc = next(filter(None, map(shutil.which, places)), None)
    if nvcc is None:
        return ''
    result = subprocess.run([nvcc, '-V'], capture_output=True, text=True)
    release = re.search(r'release ([\d.]+)', result.stdout)
    return f'{release[1]}, {nvcc}' if release else ''


def _package(distribution: str, module: str) -> tuple[str, str]:
    """Return the version of a package, and what is wrong with it."""
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            return 'missing', f'{distribution} is missing'
        return 'broken', f'{distribution} does not import: {error}'
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        # Versions that do not go together show in many ways.
        reason = str(error).partition('\n')[0]
        return 'broken', f'{distribution} does not import: {reason}'
    if not installed_version(distribution):
        fork = DISTRIBUTIONS.get(module, ('', ''))[1]
        if fork and installed_version(fork):
            return f'{installed_version(fork)} of {fork}', ''
    # OpenCV comes in several distributions.
    version = installed_version(distribution) or getattr(
        imported, '__version__', '?'
    )
    return version, ''


def _mmcv_operators() -> tuple[str, tuple[str, str] | None]:
    cuda = 'FORCE_CUDA=1 ' if torch.cuda.is_available() else ''
    command = _BUILD_MMCV.format(cuda)
    try:
        from mmcv.ops import get_compiling_cuda_version
    except (ImportError, OSError) as error:
        if not importlib.util.find_spec('mmcv'):
            return 'missing', None
        reason = str(error).partition('\n')[0]
        return 'missing', (
            f'mmcv is installed without its operators ({reason})',
            command,
        )
    version = get_compiling_cuda_version()
    if version not in ('not available', ''):
        return f'CPU and CUDA {version}', None
    if not cuda:
        return 'CPU', None
    return 'CPU', ('mmcv has no CUDA operators, but torch a GPU', command)


def _scan() -> tuple[str, tuple[str, str] | None]:
    try:
        backend = scan_backend()
    except (ValueError, ImportError) as error:
        return 'none', (str(error), f'unset {ENV_NAME}')
    by_hand = os.environ.get(ENV_NAME, '').strip()
    if by_hand:
        return f'{backend}, chosen by {ENV_NAME}', None
    if backend == 'extension':
        devices = ' and '.join(find_extension().devices)
        where = f'{backend}, built for {devices}'
        if torch.cuda.is_available() and 'cuda' not in devices:
            return where, (
                'the scan extension has no CUDA kernels, but torch a GPU',
                f'FORCE_CUDA=1 {INSTALL_COMMAND}',
            )
        return where, None
    return backend, (
        'the scan extension is missing, so the scan runs in plain PyTorch',
        INSTALL_COMMAND,
    )


def _toolkit_mismatch(nvcc: str) -> tuple[str, str] | None:
    """torch builds extensions with the major version that it came from."""
    if nvcc == 'none' or torch.version.cuda is None:
        return None
    wanted = Version(torch.version.cuda)
    if Version(nvcc.split(',')[0]).major == wanted.major:
        return None
    return (
        f'nvcc is {nvcc}, and torch was built with CUDA {wanted}',
        f'export CUDA_HOME=/usr/local/cuda-{wanted.major}.{wanted.minor}',
    )

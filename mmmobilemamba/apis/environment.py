"""What is installed, what is missing, and what mends it."""

import importlib
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

from ..checkpoints.forks import installed_version
from ..registry import HOST_FAULTS, HOST_REQUIREMENTS, import_host

_BUILD_MMCV = (
    'pip install "setuptools<82" ninja && MMCV_WITH_OPS=1 {}'
    'pip install --no-build-isolation --force-reinstall --no-deps '
    '--no-binary mmcv mmcv==2.1.0'
)
# Module -> distribution, and what installs it.
_PACKAGES = {
    'torch': ('torch', 'pip install torch'),
    'torchvision': ('torchvision', 'pip install torchvision==0.26.0'),
    'numpy': ('numpy', 'pip install numpy'),
    'cv2': ('opencv-python', 'pip install opencv-python'),
    'mmengine': ('mmengine', 'pip install mmengine==0.10.7'),
    'mmcv': ('mmcv', _BUILD_MMCV.format('')),
    'mmdet': ('mmdet', f'pip install {HOST_REQUIREMENTS["mmdet"]}'),
    'mmseg': (
        'mmsegmentation',
        f'pip install {HOST_REQUIREMENTS["mmseg"]} ftfy regex',
    ),
    'mmpretrain': (
        'mmpretrain',
        f'pip install {HOST_REQUIREMENTS["mmpretrain"]}',
    ),
    'pycocotools': ('pycocotools', 'pip install pycocotools'),
}
_EXTENSION = 'mmmobilemamba-selective-scan'


def collect_env() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Look at the installation.

    Returns:
        tuple: What is there, by name, and a list of (fault, command that
        mends it).
    """
    found, faults = _hardware(), []
    import_host('mmseg')  # the one that imports the others
    for module, (name, command) in _PACKAGES.items():
        found[name], fault = _package(module, name)
        if fault:
            _, command = HOST_FAULTS.get(module, ('', command))
            faults.append((f'{name} {fault}', command))
    found['mmmobilemamba'] = __version__
    found[_EXTENSION] = installed_version(_EXTENSION) or 'missing'
    for name, look in (
        ('mmcv operators', _operators),
        ('scan backend', _scan),
    ):
        found[name], fault = look()
        if fault:
            faults.append(fault)
    fault = _toolkit_mismatch(found['nvcc'])
    return found, faults + ([fault] if fault else [])


def cpu_name() -> str:
    """Return the name of the processor, or its architecture."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return re.search(r'model name\s*: (.*)', file.read())[1]
    except (OSError, TypeError):
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
        gpu = torch.cuda.get_device_properties(index)
        found[f'GPU {index}'] = (
            f'{gpu.name}, sm_{gpu.major}{gpu.minor}, '
            f'{gpu.total_memory / 2**30:.0f} GiB'
        )
    if not torch.cuda.is_available():
        found['GPU'] = 'none that torch sees'
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    places = [os.path.join(home, 'bin', 'nvcc')] if home else ['nvcc']
    places.append('/usr/local/cuda/bin/nvcc')
    nvcc = next(filter(None, map(shutil.which, places)), '')
    release = re.search(r'release ([\d.]+)', _output(nvcc, '-V'))
    found['nvcc'] = f'{release[1]}, {nvcc}' if release else 'none'
    compiler = _output(os.environ.get('CXX') or 'c++', '--version')
    found['C++ compiler'] = compiler.partition('\n')[0] or 'none'
    return found


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ''
    return subprocess.run(command, capture_output=True, text=True).stdout


def _package(module: str, name: str) -> tuple[str, str]:
    """Return the version of a package, and what is wrong with it."""
    if module in HOST_FAULTS:
        return 'broken', f'does not import: {HOST_FAULTS[module][0]}'
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        # Versions that do not go together show in many ways.
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return 'missing', 'is missing'
        reason = str(error).partition('\n')[0]
        return 'broken', f'does not import: {reason}'
    version = installed_version(name)
    fork = f'onedl-{name.replace("mmdet", "mmdetection")}'
    if not version and installed_version(fork):
        return f'{installed_version(fork)} of {fork}', ''
    # OpenCV comes in several distributions.
    return version or getattr(imported, '__version__', '?'), ''


def _operators() -> tuple[str, tuple[str, str] | None]:
    cuda = 'FORCE_CUDA=1 ' if torch.cuda.is_available() else ''
    command = _BUILD_MMCV.format(cuda)
    try:
        from mmcv.ops import get_compiling_cuda_version
    except Exception as error:
        reason = str(error).partition('\n')[0]
        fault = f'the operators of mmcv do not import ({reason})'
        return 'missing', (fault, command)
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
    if os.environ.get(ENV_NAME, '').strip():
        return f'{backend}, chosen by {ENV_NAME}', None
    if backend != 'extension':
        fault = 'the scan extension is missing: the scan runs in plain PyTorch'
        return backend, (fault, INSTALL_COMMAND)
    devices = ' and '.join(find_extension().devices)
    where = f'{backend}, built for {devices}'
    if not torch.cuda.is_available() or 'cuda' in devices:
        return where, None
    fault = 'the scan extension has no CUDA kernels, but torch a GPU'
    return where, (fault, f'FORCE_CUDA=1 {INSTALL_COMMAND}')


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

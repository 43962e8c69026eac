"""What is installed, what is missing, and what mends it."""

import importlib
import os
import platform
import re
import sys

import torch
from mmengine.utils import dl_utils

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
# Module -> what pip installs for it.
_PACKAGES = {
    'torch': 'torch',
    'torchvision': 'torchvision==0.26.0',
    'numpy': 'numpy',
    'cv2': 'opencv-python',
    'mmengine': 'mmengine==0.10.7',
    'mmcv.ops': 'mmcv==2.1.0',  # compiled only where asked for
    **HOST_REQUIREMENTS,
    'pycocotools': 'pycocotools',
}
_EXTENSION = 'mmmobilemamba-selective-scan'


def collect_env() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Look at the installation.

    Returns:
        tuple: What is there, by name, and a list of (fault, command that
        mends it).
    """
    found = {k: str(v) for k, v in dl_utils.collect_env().items()}
    for name in ('PyTorch compiling details', 'numpy_random_seed'):
        found.pop(name, None)
    found['CPU'] = f'{cpu_name()}, {os.cpu_count()} cores'
    faults = []
    import_host('mmseg')  # the one that imports the others
    for module, requirement in _PACKAGES.items():
        name = requirement.partition('==')[0]
        found[name], fault = _package(module, name)
        if fault:
            command = f'pip install {requirement}'
            if name == 'mmcv':
                command = _BUILD_MMCV.format(_cuda_flag())
            elif module == 'mmseg':  # imports both without requiring them
                command += ' ftfy regex'
            _, command = HOST_FAULTS.get(module, ('', command))
            faults.append((f'{name} {fault}', command))
    if 'mmcv.ops' in sys.modules:
        from mmcv.ops import get_compiling_cuda_version

        found['CUDA of mmcv'] = get_compiling_cuda_version()
        if found['CUDA of mmcv'] == 'not available' and _cuda_flag():
            fault = 'mmcv has no CUDA operators, but torch a GPU'
            faults.append((fault, _BUILD_MMCV.format(_cuda_flag())))
    found['mmmobilemamba'] = __version__
    found[_EXTENSION] = installed_version(_EXTENSION) or 'missing'
    found['scan backend'], fault = _scan()
    return found, faults + ([fault] if fault else [])


def cpu_name() -> str:
    """Return the name of the processor, or its architecture."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return re.search(r'model name\s*: (.*)', file.read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def _package(module: str, name: str) -> tuple[str, str]:
    """Return the version of a package, and what is wrong with it."""
    if module in HOST_FAULTS:
        return 'broken', f'does not import: {HOST_FAULTS[module][0]}'
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        # Versions that do not go together show in many ways.
        if isinstance(error, ImportError) and error.name == module:
            return 'missing', 'is missing'
        reason = str(error).partition('\n')[0]
        return 'broken', f'does not import: {reason}'
    version = installed_version(name)
    fork = f'onedl-{name.replace("mmdet", "mmdetection")}'
    if not version and installed_version(fork):
        return f'{installed_version(fork)} of {fork}', ''
    # OpenCV comes in several distributions.
    return version or getattr(imported, '__version__', '?'), ''


def _cuda_flag() -> str:
    return 'FORCE_CUDA=1 ' if torch.cuda.is_available() else ''


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
    if not _cuda_flag() or 'cuda' in devices:
        return where, None
    fault = 'the scan extension has no CUDA kernels, but torch a GPU'
    return where, (fault, _cuda_flag() + INSTALL_COMMAND)

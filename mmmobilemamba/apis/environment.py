"""What is installed, what is missing, and what mends it."""

import importlib
import os
import platform
import re

import torch
from mmengine.utils import dl_utils

from ..checkpoints.forks import installed_version
from ..ops import ENV_NAME, INSTALL_COMMAND, find_extension, scan_backend
from ..registry import (
    HOST_FAULTS,
    HOST_REQUIREMENTS,
    MMCV_REQUIREMENT,
    import_host,
)
from ..version import __version__

# Distribution -> module, what to give to pip install. mmengine reports itself,
# torch and OpenCV, without which nothing would run here.
_PACKAGES = {
    'torchvision': ('torchvision', 'torchvision==0.26.0'),
    'numpy': ('numpy', 'numpy'),
    'mmcv': ('mmcv.ops', MMCV_REQUIREMENT),
    'mmpretrain': ('mmpretrain', HOST_REQUIREMENTS['mmpretrain']),
    'mmdet': ('mmdet', HOST_REQUIREMENTS['mmdet']),
    # It imports both others without requiring what they need.
    'mmsegmentation': ('mmseg', f'{HOST_REQUIREMENTS["mmseg"]} ftfy regex'),
    'pycocotools': ('pycocotools', 'pycocotools'),
}
_EXTENSION = 'mmmobilemamba-selective-scan'


def collect_env() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return what is installed, by name, and a list of (fault, command that
    mends it)."""
    found = {k: str(v) for k, v in dl_utils.collect_env().items()}
    found.pop('PyTorch compiling details', None)
    found['CPU'] = f'{cpu_name()}, {os.cpu_count()} cores'
    gpu, faults = torch.cuda.is_available(), []
    import_host('mmseg')  # the one that imports the others
    for name, (module, requirement) in _PACKAGES.items():
        command = f'pip install {requirement}'
        fork = f'onedl-{name.replace("mmdet", "mmdetection")}'
        found[name] = installed_version(name) or '-'
        if installed_version(fork):
            found[name] = f'{installed_version(fork)} of {fork}'
        try:
            module = importlib.import_module(module)
        except Exception as error:  # versions that do not go together
            fault = str(error).partition('\n')[0], command
            fault, command = HOST_FAULTS.get(module, fault)
            faults.append((f'{name} does not import: {fault}', command))
        else:
            if name == 'mmcv':
                built = module.get_compiling_cuda_version()
                found['CUDA of mmcv'] = built
                if gpu and built == 'not available':
                    faults.append(('mmcv has no CUDA operators', command))
    found['mmmobilemamba'] = __version__
    extension = find_extension()
    devices = ' and '.join(extension.devices)
    version = installed_version(_EXTENSION) or '-'
    found[_EXTENSION] = f'{version}, built for {devices or "nothing"}'
    if not devices or (gpu and 'cuda' not in devices):
        command = 'FORCE_CUDA=1 ' * gpu + INSTALL_COMMAND
        why = extension.why or 'it has no CUDA kernels'
        faults.append((f'the scan extension is left out: {why}', command))
    try:
        found['scan backend'] = scan_backend()
    except (ValueError, ImportError) as error:
        faults.append((str(error), f'unset {ENV_NAME}'))
    return found, faults


def cpu_name() -> str:
    """Return the name of the processor, or its architecture."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return re.search(r'model name\s*: (.*)', file.read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()

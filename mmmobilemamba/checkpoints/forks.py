"""The maintained forks of the OpenMMLab libraries (onedl-mmengine, ...).

They hold the same modules under other distribution names.
"""

import importlib.util
from importlib import metadata

import torch
from mmengine.config import utils as config_utils

# Module -> distribution of the original and of the fork.
DISTRIBUTIONS = {
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}


def installed_version(distribution: str) -> str:
    """Return the version of a distribution.

    Args:
        distribution (str): Name that pip knows.

    Returns:
        str: Its version, '' where it is not installed.
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ''


def find_fork_configs() -> None:
    """Let ``mmseg::`` inheritance work where the fork is installed.

    mmengine, the fork's too, looks ``mmseg::...`` up in the distribution
    mmsegmentation. Where that is missing the module itself is where to look.
    Calling it again changes nothing.
    """
    original, _ = DISTRIBUTIONS['mmseg']
    if installed_version(original) or not importlib.util.find_spec('mmseg'):
        return
    config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'


def load_as_original() -> None:
    """Let the fork's mmengine load checkpoints as the original does.

    The fork lets a file call getattr and numpy's constructors, reads what
    torch refuses without restriction, and takes what it listed for that time
    off torch's list, where it was on it before, too. Calling it again changes
    nothing.
    """
    from mmengine.runner import checkpoint

    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load

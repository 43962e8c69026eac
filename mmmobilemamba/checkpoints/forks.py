"""The maintained forks of the OpenMMLab libraries (onedl-mmengine, ...)."""

import importlib.util
from importlib import metadata

from mmengine.config import utils as config_utils


def installed_version(distribution: str) -> str:
    """Return the version of a distribution, '' where pip knows none."""
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
    if installed_version('mmsegmentation'):
        return
    if importlib.util.find_spec('mmseg'):
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'

"""The maintained forks of the OpenMMLab libraries (onedl-mmengine, ...)."""

from importlib import metadata

from mmengine.config import utils as config_utils


def installed_version(distribution: str) -> str:
    """Return the version of a distribution, '' where pip knows none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ''


def find_fork_configs() -> None:
    """Let ``mmseg::`` inheritance work where the fork is installed, too.

    mmengine looks it up in the distribution mmsegmentation, and what is no
    distribution's name it takes for a module's.
    """
    config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'

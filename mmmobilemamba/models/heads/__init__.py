"""Heads that the published models need and the host libraries lack.

Each builds on one host library and is there only where that one is installed.
An ImportError of an installed host library, or of our own code, is shown.
"""

from importlib.util import find_spec

__all__ = []

if find_spec('mmdet') is not None:
    from .ssd_head import SSDHead  # noqa: F401

    __all__ += ['SSDHead']

if find_spec('mmpretrain') is not None:
    from .bn_linear_head import BNLinearClsHead  # noqa: F401

    __all__ += ['BNLinearClsHead']

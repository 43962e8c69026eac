"""Heads that the published models need and the host libraries lack.

Each builds on one host library and is there only where that one works.
"""

from ...registry import import_host

__all__ = []

# MMDetection imports MMPretrain, which has to be known as absent before.
if import_host('mmpretrain.models'):
    from .bn_linear_head import BNLinearClsHead  # noqa: F401

    __all__ += ['BNLinearClsHead']

if import_host('mmdet.models'):
    from .ssd_head import SSDHead  # noqa: F401

    __all__ += ['SSDHead']

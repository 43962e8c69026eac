"""Heads that the published models need, where the host library imports."""

from ...registry import import_host

__all__ = []

if import_host('mmdet'):
    from .ssd_head import SSDHead  # noqa: F401

    __all__ += ['SSDHead']

if import_host('mmpretrain'):
    from .bn_linear_head import BNLinearClsHead  # noqa: F401

    __all__ += ['BNLinearClsHead']

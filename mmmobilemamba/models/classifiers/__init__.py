"""Classifiers that MMPretrain lacks; there only where it imports."""

from ...registry import import_host

__all__ = []

if import_host('mmpretrain'):
    from .distilled import DistilledClassifier  # noqa: F401

    __all__ += ['DistilledClassifier']

"""Classifiers that MMPretrain lacks; there only where that one works."""

from ...registry import import_host

__all__ = []

if import_host('mmpretrain.models'):
    from .distilled import DistilledClassifier  # noqa: F401

    __all__ += ['DistilledClassifier']

"""Classifiers that MMPretrain lacks; there only where it is installed."""

from importlib.util import find_spec

__all__ = []

if find_spec('mmpretrain') is not None:
    from .distilled import DistilledClassifier  # noqa: F401

    __all__ += ['DistilledClassifier']

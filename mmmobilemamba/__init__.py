"""MobileMamba for MMDetection, MMSegmentation and MMPretrain.

Importing the package registers nothing and pulls in no host library: mmengine
imports :mod:`mmmobilemamba.registry` when it meets a ``mmmobilemamba.`` type
in a config.
"""

from .version import __version__

__all__ = ['__version__']

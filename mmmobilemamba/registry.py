"""Registries of the ``mmmobilemamba`` scope.

mmengine imports this module by itself when a config names a type such as
``mmmobilemamba.MobileMamba``, so no ``custom_imports`` is needed. It swallows
an ImportError raised here, hence nothing but mmengine is imported; the
``locations`` are imported when a registry is first asked for a name.
"""

import importlib
import importlib.util
import logging
import sys

from mmengine import registry as root
from mmengine.logging import print_log
from mmengine.registry import Registry

_SCOPE = 'mmmobilemamba'


def _child(kind: str, parent: Registry, location: str) -> Registry:
    return Registry(
        kind,
        parent=parent,
        scope=_SCOPE,
        locations=[f'mmmobilemamba.{location}'],
    )


def import_host(module: str) -> bool:
    """Import a module of a host library, if it is installed and works.

    The host libraries import each other under ``except ImportError``, and
    fall with one that raises anything else. So a library that cannot be
    imported is made to look absent, and one warning says why.

    Args:
        module (str): Name such as ``'mmdet.models'``.

    Returns:
        bool: Whether it can be used.
    """
    host = module.partition('.')[0]
    if importlib.util.find_spec(host) is None:
        return False
    try:
        importlib.import_module(module)
    except Exception as error:
        for name in [n for n in sys.modules if n.startswith(f'{host}.')]:
            del sys.modules[name]
        sys.modules[host] = None
        print_log(
            f'{host} does not import and is left out '
            f'({type(error).__name__}: {error}). What needs it is missing; '
            'docs/versions.md lists versions that work together.',
            logger='current',
            level=logging.WARNING,
        )
        return False
    return True


MODELS = _child('model', root.MODELS, 'models')
DATASETS = _child('dataset', root.DATASETS, 'datasets')
TRANSFORMS = _child('transform', root.TRANSFORMS, 'datasets')
HOOKS = _child('hook', root.HOOKS, 'engine')
OPTIM_WRAPPERS = _child('optim_wrapper', root.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor',
    root.OPTIM_WRAPPER_CONSTRUCTORS,
    'engine',
)
MODEL_WRAPPERS = _child('model_wrapper', root.MODEL_WRAPPERS, 'engine')
METRICS = _child('metric', root.METRICS, 'engine')
VISUALIZERS = _child('visualizer', root.VISUALIZERS, 'engine')

__all__ = [
    'import_host',
    'MODELS',
    'DATASETS',
    'TRANSFORMS',
    'HOOKS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'MODEL_WRAPPERS',
    'METRICS',
    'VISUALIZERS',
]

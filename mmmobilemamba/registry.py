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
from importlib import metadata
from types import ModuleType

from mmengine import registry as root
from mmengine.logging import print_log
from mmengine.registry import Registry

_SCOPE = 'mmmobilemamba'
# Host library -> what pip installs for it. Each imports those before it.
HOST_REQUIREMENTS = {
    'mmpretrain': 'mmpretrain==1.2.0',
    'mmdet': 'mmdet==3.3.0',
    'mmseg': 'mmsegmentation==1.2.2',
}
# Host library that is there and cannot be imported -> why, and the cure.
HOST_FAULTS: dict[str, tuple[str, str]] = {}


def _child(kind: str, parent: Registry, location: str) -> Registry:
    return Registry(
        kind,
        parent=parent,
        scope=_SCOPE,
        locations=[f'mmmobilemamba.{location}'],
    )


def import_host(name: str) -> ModuleType | None:
    """Import a host library, or make one that cannot be look absent.

    The host libraries import each other where they are there, and an error
    other than ImportError in one would end all of them.

    Args:
        name (str): ``'mmpretrain'``, ``'mmdet'`` or ``'mmseg'``.

    Returns:
        ModuleType: The library; None where it is missing or broken, which is
        said in one warning.
    """
    for host in HOST_REQUIREMENTS:
        there = importlib.util.find_spec(host) is not None
        if there:
            try:
                importlib.import_module(f'{host}.models')
            except Exception as error:
                _hide(host, error)
        if host == name:
            break
    return sys.modules.get(name) if there else None


def _hide(host: str, error: Exception) -> None:
    for module in list(sys.modules):
        if module.partition('.')[0] == host:
            del sys.modules[module]
    sys.modules[host] = None  # importing it is an ImportError from here on
    reason = str(error).partition('\n')[0]
    cure = f'pip install "{HOST_REQUIREMENTS[host]}"'
    try:
        if int(metadata.version('transformers').partition('.')[0]) >= 5:
            cure += ' "transformers<5"'
    except (metadata.PackageNotFoundError, ValueError):
        pass
    HOST_FAULTS[host] = (f'{type(error).__name__}: {reason}', cure)
    print_log(
        f'{host} is left out, since it does not import: '
        f'{type(error).__name__}: {reason}. To mend it: {cure}',
        'current',
        logging.WARNING,
    )


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

"""Registries of the ``mmmobilemamba`` scope.

mmengine imports this module by itself when a config names a type such as
``mmmobilemamba.MobileMamba``, so no ``custom_imports`` is needed. It swallows
an ImportError raised here, hence nothing but mmengine is imported; the
``locations`` are imported when a registry is first asked for a name.
"""

import importlib.util
import logging
import sys
from importlib import metadata
from traceback import walk_tb
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
# Its operators are compiled only where they are asked for.
MMCV_REQUIREMENT = (
    '"setuptools<82" ninja && MMCV_WITH_OPS=1 pip install --no-deps '
    '--force-reinstall --no-build-isolation --no-binary mmcv mmcv==2.1.0'
)
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

    They import each other, and an error in one would end all of them; it is
    the one that is at fault that is hidden.

    Args:
        name (str): ``'mmpretrain'``, ``'mmdet'`` or ``'mmseg'``.

    Returns:
        ModuleType: The library; None where it is missing or, with a warning,
        broken.
    """
    for host in HOST_REQUIREMENTS:
        while importlib.util.find_spec(host) is not None:
            try:
                importlib.import_module(f'{host}.models')
                break
            except Exception as error:
                # Without the one at fault this one may do.
                _hide(_at_fault(host, error), error)
        if host == name:
            break
    return sys.modules.get(name) if importlib.util.find_spec(name) else None


def _at_fault(host: str, error: Exception) -> str:
    """Return the innermost host library that an import went through."""
    hosts = [x for x in _importers(error) if x in HOST_REQUIREMENTS]
    return [host, *(x for x in hosts if x not in HOST_FAULTS)][-1]


def _importers(error: Exception) -> list[str]:
    """Return the packages that were imported from here, outermost first."""
    below = walk_tb(error.__traceback__.tb_next)
    names = (frame.f_globals['__name__'] for frame, _ in below)
    return [name.partition('.')[0] for name in names]


def _hide(host: str, error: Exception) -> None:
    for module in list(sys.modules):
        if module.partition('.')[0] == host:
            del sys.modules[module]
    sys.modules[host] = None  # importing it is an ImportError from here on
    reason = f'{type(error).__name__}: {error}'.partition('\n')[0]
    cure = f'pip install {_to_mend(host, error)}'
    HOST_FAULTS[host] = (reason, cure)
    text = f'{host} is left out, since it does not import: {reason}. {cure}'
    print_log(text, 'current', logging.WARNING)


def _to_mend(host: str, error: Exception) -> str:
    """Return what to install where a host or what it builds on is broken."""
    installed = metadata.packages_distributions()
    roots = _importers(error)
    if isinstance(error, ImportError):
        roots.append((error.name or '').partition('.')[0])
    missing = roots[-1:] if isinstance(error, ModuleNotFoundError) else []
    # torch and mmengine refuse what others ask of them.
    known = installed.keys() - {'torch', 'mmengine'} | {*missing}
    root = [host, *(x for x in roots if x in known)][-1]
    if root == 'mmcv':
        return MMCV_REQUIREMENT
    # A newer transformers is what breaks mmpretrain most often.
    if root in (*HOST_REQUIREMENTS, 'transformers'):
        return f'"{HOST_REQUIREMENTS[host]}" "transformers<5"'
    return f'--force-reinstall {installed.get(root, [root])[0]}'


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
VISUALIZERS = _child('visualizer', root.VISUALIZERS, 'engine.visualizer')

"""Registries of the ``mmmobilemamba`` scope.

mmengine imports this module by itself when a config names a type such as
``mmmobilemamba.MobileMamba``, so no ``custom_imports`` is needed. It swallows
an ImportError raised here, hence nothing but mmengine is imported; the
``locations`` are imported when a registry is first asked for a name.
"""

from mmengine import registry as root
from mmengine.registry import Registry

_SCOPE = 'mmmobilemamba'


def _child(kind: str, parent: Registry, location: str) -> Registry:
    return Registry(
        kind,
        parent=parent,
        scope=_SCOPE,
        locations=[f'mmmobilemamba.{location}'],
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

__all__ = [
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

"""Reading a config, and finding the host library that it belongs to."""

import os

from mmengine.config import Config

from ..checkpoints.forks import find_fork_configs
from ..registry import HOST_FAULTS, HOST_REQUIREMENTS, MODELS, import_host


def load_config(
    path: str | os.PathLike, cfg_options: dict | None = None
) -> Config:
    """Read a config file and import the library that it belongs to.

    Args:
        path (str or PathLike): Config file.
        cfg_options (dict, optional): Values by dotted key that replace those
            of the file. Defaults to None.

    Returns:
        Config: The config, with ``default_scope`` where the model tells it.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: A library that the config builds on is missing or broken.
    """
    find_fork_configs()
    cfg = Config.fromfile(path)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    scope = cfg.get('default_scope')
    if scope is None:
        scope = _scope_of((cfg.get('model') or {}).get('type'))
        if scope:
            cfg.default_scope = scope
    if scope in HOST_REQUIREMENTS and import_host(scope) is None:
        raise ImportError(_missing_host(path, scope))
    return cfg


def _scope_of(kind: type | str | None) -> str | None:
    """Return the host library whose model a type is."""
    if isinstance(kind, str):
        scope, _, _ = kind.partition('.')
        if scope in HOST_REQUIREMENTS:
            return scope
        kind = MODELS.get(kind)
    for base in getattr(kind, '__mro__', ()):
        root = base.__module__.partition('.')[0]
        if root in HOST_REQUIREMENTS:
            return root
    return None


def _missing_host(path: str | os.PathLike, scope: str) -> str:
    if scope in HOST_FAULTS:
        reason, cure = HOST_FAULTS[scope]
        return (
            f'{path} belongs to {scope}, which does not import: {reason}. '
            f'To mend it: `{cure}`'
        )
    return (
        f'{path} belongs to {scope}, which is not installed. Install it with '
        f'`pip install "{HOST_REQUIREMENTS[scope]}"`.'
    )

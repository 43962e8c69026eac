"""Reading a config, and finding the host library that it belongs to."""

import os
from pathlib import Path

from mmengine.config import Config

from ..checkpoints.forks import find_fork_configs
from ..registry import HOST_FAULTS, HOST_REQUIREMENTS, MODELS, import_host


def load_config(
    path: str | os.PathLike, cfg_options: dict | None = None
) -> Config:
    """Read a config file and import the library that it belongs to.

    Args:
        path (str or PathLike): Config file, or the name of one of ours
            without folder and suffix.
        cfg_options (dict, optional): Values by dotted key that replace those
            of the file. Defaults to None.

    Returns:
        Config: The config, with ``default_scope`` where the model tells it.

    Raises:
        ImportError: A library that the config builds on is missing or broken.
    """
    find_fork_configs()
    cfg = Config.fromfile(_find_config(os.fspath(path)))
    cfg.merge_from_dict(cfg_options or {})
    kind = (cfg.get('model') or {}).get('type')
    scope = cfg.get('default_scope') or scope_of(kind)
    if scope:
        cfg.default_scope = scope
    if scope in HOST_REQUIREMENTS and import_host(scope) is None:
        install = f'pip install "{HOST_REQUIREMENTS[scope]}"'
        why, cure = HOST_FAULTS.get(scope, ('it is not installed', install))
        raise ImportError(f'{path} needs {scope}: {why}. To mend it: {cure}')
    return cfg


def _find_config(name: str) -> str:
    """Return the file of a config of ours by its name, or what was given."""
    package = Path(__file__).parents[1]
    if os.path.basename(name) == name and not name.endswith('.py'):
        for folder in (package.parent / 'configs', package / '.mim/configs'):
            for file in folder.rglob(f'{name}.py'):
                return str(file)
    return name


def scope_of(kind: type | str | None) -> str | None:
    """Return the host library whose model a type is, by name or class."""
    if isinstance(kind, str):
        scope = kind.partition('.')[0]
        if scope in HOST_REQUIREMENTS:
            return scope
        kind = MODELS.get(kind)
    bases = getattr(kind, '__mro__', ())
    roots = (base.__module__.partition('.')[0] for base in bases)
    return next((root for root in roots if root in HOST_REQUIREMENTS), None)

"""Reading a config, and finding the host library that it belongs to."""

import difflib
import os
from pathlib import Path

from mmengine.config import Config

from ..checkpoints.forks import find_fork_configs
from ..registry import HOST_FAULTS, HOST_REQUIREMENTS, MODELS, import_host


def load_config(
    path: str | os.PathLike, cfg_options: dict | None = None
) -> Config:
    """Read a config file, or say which name was meant.

    Args:
        path (str or PathLike): Config file, or the name of one of ours
            without folder and suffix.
        cfg_options (dict, optional): Values by dotted key that replace those
            of the file. Defaults to None.

    Returns:
        Config: The config, with its host library known to be importable, and
        with ``default_scope`` where the model tells it.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: A library that the config builds on is missing or broken.
    """
    path = _find_config(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'Config {path} does not exist.{_did_you_mean(path)}'
        )
    find_fork_configs()
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        # A base such as mmdet::..., whose package mmengine does not find.
        for scope, requirement in HOST_REQUIREMENTS.items():
            names = (scope, requirement.partition('==')[0])
            if getattr(error, 'name', None) in names or names[1] in str(error):
                raise ImportError(_missing_host(path, scope)) from error
        raise
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    check_host(cfg, path)
    return cfg


def _find_config(name: str) -> str:
    """Return the file of a config of ours by its name, or what was given."""
    package = Path(__file__).parents[1]
    if os.path.basename(name) == name and not name.endswith('.py'):
        for root in (package.parent / 'configs', package / '.mim/configs'):
            for file in root.rglob(f'{name}.py'):
                return str(file)
    return name


def check_host(cfg: Config, path: str = 'the config') -> None:
    """Find and import the library that a config belongs to.

    Args:
        cfg (Config): Config; ``default_scope`` is set where it is missing and
            the type of the model tells it.
        path (str): Where it comes from, for the message. Defaults to
            ``'the config'``.

    Raises:
        ImportError: The library is missing or does not import.
    """
    if cfg.get('default_scope') is None:
        scope = _scope_of((cfg.get('model') or {}).get('type'))
        if scope:
            cfg.default_scope = scope
    scope = cfg.get('default_scope')
    if scope in HOST_REQUIREMENTS and import_host(scope) is None:
        raise ImportError(_missing_host(path, scope))


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


def _missing_host(path: str, scope: str) -> str:
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


def _did_you_mean(path: str) -> str:
    """Return a sentence with configs of a similar name, or nothing."""
    package = Path(__file__).parents[1]
    # The folder of a mistyped path may be the root of a whole disk.
    files = list(Path(path).parent.glob('*.py'))
    for folder in (package.parent / 'configs', package / '.mim' / 'configs'):
        files += folder.rglob('*.py')
    known = {file.stem: file for file in files}
    near = difflib.get_close_matches(Path(path).stem, known, n=3, cutoff=0.6)
    if not near:
        return ''
    names = ', '.join(os.path.relpath(known[name]) for name in near)
    return f' Did you mean {names}?'

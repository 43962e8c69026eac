"""Reading a config, and finding the host library that it belongs to."""

import difflib
import importlib
import importlib.util
import os
from pathlib import Path

from mmengine.config import Config

from ..checkpoints.forks import find_fork_configs

# Scope of a config -> what pip installs for it.
HOST_REQUIREMENTS = {
    'mmdet': 'mmdet==3.3.0',
    'mmseg': 'mmsegmentation==1.2.2',
    'mmpretrain': 'mmpretrain==1.2.0',
}


def load_config(
    path: str | os.PathLike, cfg_options: dict | None = None
) -> Config:
    """Read a config file, or say which name was meant.

    Args:
        path (str or PathLike): Config file.
        cfg_options (dict, optional): Values by dotted key that replace those
            of the file. Defaults to None.

    Returns:
        Config: The config, with its host library known to be importable.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: A library that the config builds on is missing.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'Config {path} does not exist.{_did_you_mean(path)}'
        )
    find_fork_configs()
    try:
        cfg = Config.fromfile(path)
    except ModuleNotFoundError as error:
        # A base such as mmdet::..., whose package mmengine does not find.
        for scope, requirement in HOST_REQUIREMENTS.items():
            if requirement.partition('==')[0] in str(error):
                raise ImportError(_missing_host(path, scope)) from error
        raise
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    check_host(cfg, path)
    return cfg


def check_host(cfg: Config, path: str = 'the config') -> None:
    """Import the library that a config belongs to.

    Args:
        cfg (Config): Config; its ``default_scope`` names the library.
        path (str): Where it comes from, for the message. Defaults to
            ``'the config'``.

    Raises:
        ImportError: The library is missing or does not import.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    if importlib.util.find_spec(scope) is None:
        raise ImportError(_missing_host(path, scope))
    try:
        importlib.import_module(scope)
    except (ImportError, AssertionError) as error:
        # The libraries assert the versions of mmcv and mmengine.
        raise ImportError(
            f'{scope}, which {path} belongs to, does not import: {error} '
            f'Tested: {_pip_command(scope)}'
        ) from error


def _pip_command(scope: str) -> str:
    return f'`pip install "{HOST_REQUIREMENTS.get(scope, scope)}"`'


def _missing_host(path: str, scope: str) -> str:
    return (
        f'{path} belongs to {scope}, which is not installed. Install it with '
        f'{_pip_command(scope)}.'
    )


def _did_you_mean(path: str) -> str:
    """Return a sentence with configs of a similar name, or nothing."""
    package = Path(__file__).parents[1]
    folders = [Path(path).parent]
    folders += [package.parent / 'configs', package / '.mim' / 'configs']
    known = {}
    for folder in folders:
        # The folder of a mistyped path may be the root of a whole disk.
        files = (
            folder.glob('*.py')
            if folder is folders[0]
            else (folder.rglob('*.py'))
        )
        known.update({file.stem: file for file in files})
    near = difflib.get_close_matches(Path(path).stem, known, n=3, cutoff=0.6)
    if not near:
        return ''
    names = ', '.join(os.path.relpath(known[name]) for name in near)
    return f' Did you mean {names}?'

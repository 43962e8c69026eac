"""Checks of configs of a module's parts, and of its initialisation."""

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmengine.registry import WEIGHT_INITIALIZERS
from torch.nn.modules.batchnorm import _BatchNorm

from .arguments import check_bool, check_int, check_number

BATCH_NORMS = ('BN', 'BN2d', 'SyncBN', 'MMSyncBN')


def check_init_cfg(init_cfg: object, loads_strictly: bool = True) -> None:
    """Check how a module shall be initialised.

    Args:
        init_cfg (dict or list[dict], optional): Config of mmengine.
        loads_strictly (bool): Whether the module loads a pretrained file
            itself, and has to be told so by one dict. Defaults to True.

    Raises:
        TypeError: It is no dict, or a pretrained file has no path.
        ValueError: mmengine has no such initialisation.
    """
    if init_cfg is None:
        return
    several = isinstance(init_cfg, list | tuple)
    for cfg in init_cfg if several else (init_cfg,):
        if not isinstance(cfg, dict):
            raise TypeError(
                f'init_cfg must be a dict or a list of dicts, got {cfg!r}.'
            )
        kind = cfg.get('type')
        known = isinstance(kind, str) and (
            kind.rpartition('.')[2] in WEIGHT_INITIALIZERS.module_dict
        )
        if not known and not inspect.isclass(kind):
            raise ValueError(
                "init_cfg['type'] must be one of "
                f'{", ".join(sorted(WEIGHT_INITIALIZERS.module_dict))}, got '
                f'{kind!r}.'
            )
        if kind != 'Pretrained':
            continue
        if several and loads_strictly:
            raise ValueError(
                'init_cfg with the type Pretrained must be one dict, got '
                f'{init_cfg!r}.'
            )
        path = cfg.get('checkpoint')
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise TypeError(
                "init_cfg['checkpoint'] must be the path of a file, got "
                f'{path!r}.'
            )
        if not isinstance(cfg.get('prefix'), str | None):
            raise TypeError(
                "init_cfg['prefix'] must be a str or None, got "
                f'{cfg["prefix"]!r}.'
            )


def check_norm_cfg(
    norm_cfg: object, types: Sequence[str] = BATCH_NORMS
) -> None:
    """Check the config of a norm layer.

    Args:
        norm_cfg (dict): Config of mmcv.
        types (Sequence[str]): Types that are allowed, besides classes of
            BatchNorm. Defaults to those of BatchNorm.

    Raises:
        TypeError: It is no dict.
        ValueError: Its type or one of the settings that every norm has is
            not allowed.
    """
    allowed = ', '.join(types)
    if not isinstance(norm_cfg, dict):
        raise TypeError(
            f'norm_cfg must be a dict with the type {allowed}, got '
            f'{norm_cfg!r}.'
        )
    kind = norm_cfg.get('type')
    own = inspect.isclass(kind) and issubclass(kind, _BatchNorm)
    if not own and (not isinstance(kind, str) or kind not in types):
        raise ValueError(
            f"norm_cfg['type'] must be one of {allowed}, got {kind!r}."
        )
    # What is folded into a convolution needs its weights and statistics.
    folded = types == BATCH_NORMS
    for name in ('affine', 'track_running_stats') if folded else ():
        if norm_cfg.get(name, True) is not True:
            raise ValueError(
                f'norm_cfg[{name!r}] must be True, got {norm_cfg[name]!r}.'
            )
    if 'requires_grad' in norm_cfg:
        check_bool("norm_cfg['requires_grad']", norm_cfg['requires_grad'])
    if 'eps' in norm_cfg:
        check_number(
            "norm_cfg['eps']", norm_cfg['eps'], 'positive', lambda v: v > 0
        )
    if kind == 'GN':
        check_int("norm_cfg['num_groups']", norm_cfg.get('num_groups'), 1)
    if norm_cfg.get('momentum') is not None:
        check_number(
            "norm_cfg['momentum']",
            norm_cfg['momentum'],
            'in [0, 1]',
            lambda v: 0 <= v <= 1,
        )


@contextmanager
def as_value_error(what: str) -> Iterator[None]:
    """Make one kind of all the errors of what builds something.

    Args:
        what (str): What was wanted, to stand before the words of the error.

    Raises:
        TypeError: For a TypeError.
        ValueError: For a ValueError, a KeyError, an AssertionError and the
            like; files and packages that are missing stay what they are.
    """
    try:
        yield
    except TypeError as error:
        raise TypeError(f'{what}: {error}') from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        ValueError,
    ) as error:
        # str() of a KeyError puts quotes around its message.
        words = error.args[0] if isinstance(error, KeyError) else error
        raise ValueError(f'{what}: {words}') from error


def check_part(name: str, cfg: object) -> None:
    """Check that a config says what to build.

    Args:
        name (str): Name of the argument.
        cfg (dict): Config with a ``type``.

    Raises:
        TypeError: It is no dict.
        ValueError: It has no ``type``.
    """
    if not isinstance(cfg, dict):
        raise TypeError(f'{name} must be a dict with a type, got {cfg!r}.')
    kind = cfg.get('type')
    if not kind or not isinstance(kind, str | type):
        raise ValueError(
            f"{name}['type'] must be the name of a class, got {kind!r}."
        )

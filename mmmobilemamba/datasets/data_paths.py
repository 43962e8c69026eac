"""The data sets of a config, and whether their files exist."""

import os
from collections import defaultdict
from collections.abc import Iterator

from mmengine.config import Config


def type_name(part: dict | None) -> str:
    """Return the bare name of a config's ``type``, a name or a class."""
    kind = (part or {}).get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def find_parts(part: object, key: str) -> Iterator[tuple[str, dict]]:
    """Yield the dicts in lists and below wrappers of data sets, by key."""
    inner = {}
    if isinstance(part, dict):
        names = ('dataset', 'datasets')
        inner = {k: part[k] for k in names if part.get(k) is not None}
        if not inner:
            yield key, part
    elif isinstance(part, list | tuple):
        inner = dict(enumerate(part))
    for name, x in inner.items():
        yield from find_parts(x, f'{key}.{name}')


def find_datasets(cfg: Config, split: str) -> Iterator[tuple[str, dict]]:
    """Yield the data sets of ``'train'``, ``'val'`` or ``'test'``, by key."""
    loader = cfg.get(f'{split}_dataloader') or {}
    return find_parts(loader.get('dataset'), f'{split}_dataloader.dataset')


def first_dataset(dataset: dict) -> dict:
    """Return the first data set that reads files, below any wrappers."""
    return next(find_parts(dataset, ''))[1]


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the files and folders of data loaders and metrics exist.

    Raises:
        FileNotFoundError: Something is missing; the message names each path
            and the key of the config that asks for it.
    """
    missing = defaultdict(list)
    for split in splits:
        key = f'{split}_evaluator'
        metrics = find_parts(cfg.get(key), key)
        for key, part in [*find_datasets(cfg, split), *metrics]:
            for name, path in _local_paths(part):
                if not os.path.exists(os.path.expanduser(path)):
                    missing[path].append(f'{key}.{name}')
    if missing:
        lines = [f'- {path} ({", ".join(k)})\n' for path, k in missing.items()]
        raise FileNotFoundError(
            f'The config names data that does not exist:\n{"".join(lines)}'
            f'Relative paths start at {os.getcwd()}. Put the data there, or '
            'point to it with --cfg-options KEY=PATH.'
        )


def _local_paths(part: dict) -> Iterator[tuple[str, str]]:
    """Yield key and path of what a data set or metric reads."""
    for index, step in enumerate(part.get('pipeline') or ()):
        backend = (isinstance(step, dict) and step.get('backend_args')) or {}
        if backend.get('backend') == 'lmdb':
            yield f'pipeline.{index}.backend_args.db_path', backend['db_path']
    backend = (part.get('backend_args') or {}).get('backend', 'local')
    named = {key: part.get(key) for key in ('ann_file', 'data_prefix')}
    if isinstance(named['data_prefix'], dict):
        prefixes = named.pop('data_prefix').items()
        named.update({f'data_prefix.{key}': path for key, path in prefixes})
    for name, path in named.items() if backend == 'local' else ():
        whole = os.path.join(part.get('data_root') or '', path or '')
        if path and '://' not in whole:
            yield name, whole

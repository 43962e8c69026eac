"""The data sets of a config, and whether their files exist."""

import os
from collections.abc import Iterator

from mmengine.config import Config

# These data sets of MMPretrain fetch themselves unless download=False.
_SELF_FETCHING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


def type_name(part: dict | None) -> str:
    """Return the bare name of a config's ``type``, a name or a class."""
    kind = (part or {}).get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def find_datasets(cfg: Config, split: str) -> Iterator[tuple[str, dict]]:
    """Yield the data sets of a config that read files, below any wrappers.

    Args:
        cfg (Config): Config of a run.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Yields:
        tuple[str, dict]: Where each stands in the config, and its config.
    """
    loader = cfg.get(f'{split}_dataloader') or {}
    yield from _unwrap(loader.get('dataset'), f'{split}_dataloader.dataset')


def first_dataset(dataset: dict) -> dict:
    """Return the first data set that reads files, below any wrappers."""
    return next(_unwrap(dataset, ''))[1]


def _unwrap(dataset: dict | None, key: str) -> Iterator[tuple[str, dict]]:
    if not isinstance(dataset, dict):
        return
    inner = {'dataset': dataset.get('dataset')}
    for number, part in enumerate(dataset.get('datasets') or ()):
        inner[f'datasets.{number}'] = part
    inner = {name: part for name, part in inner.items() if part is not None}
    if not inner:
        yield key, dataset
    for name, part in inner.items():
        yield from _unwrap(part, f'{key}.{name}')


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the files and folders of the data loaders exist.

    Args:
        cfg (Config): Config of a run.
        splits (tuple[str]): Which of ``'train'``, ``'val'`` and ``'test'``
            the run reads.

    Raises:
        FileNotFoundError: Something is missing; the message names each path
            and the key of the config that asks for it.
    """
    missing: dict[str, list[str]] = {}
    for split in splits:
        found = find_datasets(cfg, split)
        paths = [pair for key, part in found for pair in _paths(part, key)]
        paths += _evaluator_paths(cfg, f'{split}_evaluator')
        for key, path in paths:
            if not os.path.exists(os.path.expanduser(path)):
                missing.setdefault(path, []).append(key)
    if missing:
        lines = [f'- {path} ({", ".join(k)})\n' for path, k in missing.items()]
        raise FileNotFoundError(
            f'The config names data that does not exist:\n{"".join(lines)}'
            f'Relative paths start at {os.getcwd()}. Put the data there, or '
            'point to it with --cfg-options KEY=PATH.'
        )


def _paths(dataset: dict, key: str) -> Iterator[tuple[str, str]]:
    """Yield key and path of what a data set reads."""
    for index, step in enumerate(dataset.get('pipeline') or ()):
        backend = (isinstance(step, dict) and step.get('backend_args')) or {}
        if backend.get('backend') == 'lmdb':
            name = f'{key}.pipeline.{index}.backend_args.db_path'
            yield name, str(backend.get('db_path'))
    root = dataset.get('data_root') or ''
    fetches = dataset.get('download', type_name(dataset) in _SELF_FETCHING)
    if fetches or not _is_local(root, dataset):
        return
    if root:
        yield f'{key}.data_root', root
        if not os.path.isdir(os.path.expanduser(root)):
            # What should lie in it would only repeat the message.
            return
    prefix = dataset.get('data_prefix')
    named = {'ann_file': dataset.get('ann_file')}
    if isinstance(prefix, dict):
        named.update({f'data_prefix.{k}': v for k, v in prefix.items()})
    else:
        named['data_prefix'] = prefix
    for name, path in named.items():
        if path and _is_local(path, dataset):
            yield f'{key}.{name}', os.path.join(root, path)


def _evaluator_paths(cfg: Config, key: str) -> Iterator[tuple[str, str]]:
    """Yield key and path of the annotation files that metrics read."""
    metrics = cfg.get(key)
    single = isinstance(metrics, dict)
    for index, metric in enumerate([metrics] if single else metrics or ()):
        path = isinstance(metric, dict) and metric.get('ann_file')
        if path and _is_local(path, metric):
            place = key if single else f'{key}.{index}'
            yield f'{place}.ann_file', path


def _is_local(path: object, part: dict) -> bool:
    backend = part.get('backend_args') or {}
    return (
        isinstance(path, str)
        and '://' not in path
        and backend.get('backend', 'local') == 'local'
    )

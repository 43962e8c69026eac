"""Looking for a config's data before a run starts."""

import os
from collections.abc import Iterator

from mmengine.config import Config

# These data sets of MMPretrain fetch themselves unless download=False.
_SELF_FETCHING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


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
    wanted: dict[str, list[str]] = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, path in _dataset_paths(
            loader.get('dataset'), f'{split}_dataloader.dataset'
        ):
            wanted.setdefault(path, []).append(key)
        for key, path in _evaluator_paths(cfg, f'{split}_evaluator'):
            wanted.setdefault(path, []).append(key)
    missing = {
        path: keys
        for path, keys in wanted.items()
        if not os.path.exists(os.path.expanduser(path))
    }
    if not missing:
        return
    lines = [f'- {path} ({", ".join(keys)})' for path, keys in missing.items()]
    raise FileNotFoundError(
        '\n'.join(
            [
                'The config names data that does not exist:',
                *lines,
                f'Relative paths start at {os.getcwd()}. Put the data there, '
                'or point to it with --cfg-options KEY=PATH.',
            ]
        )
    )


def _dataset_paths(dataset: dict | None, key: str) -> Iterator[tuple]:
    """Yield (key, path) of a data set and of those that it wraps."""
    if not isinstance(dataset, dict):
        return
    if 'dataset' in dataset:
        yield from _dataset_paths(dataset['dataset'], f'{key}.dataset')
    for index, part in enumerate(dataset.get('datasets') or ()):
        yield from _dataset_paths(part, f'{key}.datasets.{index}')

    for index, step in enumerate(dataset.get('pipeline') or ()):
        backend = step.get('backend_args') or {}
        if backend.get('backend') == 'lmdb':
            name = f'{key}.pipeline.{index}.backend_args.db_path'
            yield name, str(backend.get('db_path'))
    if not _is_local(dataset.get('backend_args')):
        return
    name = str(dataset.get('type')).rpartition('.')[-1]
    if name in _SELF_FETCHING and dataset.get('download', True):
        return
    root = dataset.get('data_root') or ''
    if not isinstance(root, str) or '://' in root:
        return
    if root:
        yield f'{key}.data_root', root
        if not os.path.isdir(os.path.expanduser(root)):
            # What should lie in it would only repeat the message.
            return
    named = {'ann_file': dataset.get('ann_file')}
    prefix = dataset.get('data_prefix')
    if isinstance(prefix, dict):
        named.update({f'data_prefix.{k}': v for k, v in prefix.items()})
    else:
        named['data_prefix'] = prefix
    for name, path in named.items():
        if isinstance(path, str) and path and '://' not in path:
            yield f'{key}.{name}', os.path.join(root, path)


def _evaluator_paths(cfg: Config, key: str) -> Iterator[tuple]:
    """Yield (key, path) of the annotation files that metrics read."""
    evaluators = cfg.get(key)
    single = isinstance(evaluators, dict)
    for index, metric in enumerate(
        [evaluators] if single else evaluators or ()
    ):
        if not isinstance(metric, dict):
            continue
        path = metric.get('ann_file')
        if (
            isinstance(path, str)
            and '://' not in path
            and _is_local(metric.get('backend_args'))
        ):
            yield (
                f'{key}.ann_file' if single else f'{key}.{index}.ann_file',
                path,
            )


def _is_local(backend_args: dict | None) -> bool:
    return not backend_args or backend_args.get('backend') == 'local'

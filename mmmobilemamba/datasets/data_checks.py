"""Switching the checks of the data on, for any config."""

import logging
import os
from collections.abc import Iterator
from xml.etree import ElementTree

from mmengine.config import Config
from mmengine.fileio import list_dir_or_file, list_from_file
from mmengine.logging import print_log
from mmengine.registry import DATASETS

CHECKED = 'mmmobilemamba.CheckedPipeline'
# An annotation file of COCO's size takes half a minute and gigabytes to read
# once more; tools/misc/check_dataset.py does.
_SMALL = 1 << 26
_XML_SETS = ('XMLDataset', 'VOCDataset')


def innermost(dataset: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Yield the data sets that read files, below wrappers of any kind.

    Args:
        dataset (dict): Config of a data set.
        key (str): Where it stands in its config.

    Yields:
        tuple[str, dict]: Key and config of each.
    """
    if not isinstance(dataset, dict):
        return
    inner = [('dataset', dataset.get('dataset'))]
    inner += [
        (f'datasets.{number}', part)
        for number, part in enumerate(dataset.get('datasets') or ())
    ]
    inner = [(name, part) for name, part in inner if part is not None]
    if not inner:
        yield key, dataset
    for name, part in inner:
        yield from innermost(part, f'{key}.{name}')


def head_classes(model: dict, key: str = 'model') -> dict[str, int]:
    """Return the number of classes of every head.

    Args:
        model (dict): Config of a model.
        key (str): Where it stands. Defaults to ``'model'``.

    Returns:
        dict[str, int]: ``num_classes`` by key, class-agnostic heads left out.
    """
    found = {}
    for name, part in model.items():
        parts = part if isinstance(part, (list, tuple)) else [part]
        for number, head in enumerate(parts):
            if not isinstance(head, dict) or name == 'rpn_head':
                continue
            inner = f'{key}.{name}'
            inner += f'.{number}' if part is not head else ''
            classes = head.get('num_classes')
            if name.endswith('head') and isinstance(classes, int):
                found[f'{inner}.num_classes'] = classes
            found.update(head_classes(head, inner))
    return found


def set_data_checks(
    cfg: Config, splits: tuple[str, ...], max_faulty: int = 50
) -> None:
    """Run every pipeline of the data loaders with checks.

    Args:
        cfg (Config): Config of a run.
        splits (tuple[str]): Which of ``'train'``, ``'val'`` and ``'test'``
            the run reads. Only training may leave samples out: a metric is
            over all of them.
        max_faulty (int): Samples of each data set that a process may leave
            out of training. Defaults to 50.

    Raises:
        ValueError: ``max_faulty`` is negative.
    """
    if max_faulty < 0:
        raise ValueError(f'max_faulty must be at least 0, got {max_faulty}.')
    options = label_range(cfg.get('model') or {})
    pipelines = []
    for split in splits:
        training = split == 'train'
        rules = dict(
            max_faulty=max_faulty if training else 0, drop_flat_boxes=training
        )
        loader = cfg.get(f'{split}_dataloader') or {}
        pipelines += [
            (part, 'pipeline', rules)
            for _, part in innermost(loader.get('dataset'), '')
        ]
    # Other augmentations for the last epochs.
    pipelines += [
        (hook, 'switch_pipeline', dict(max_faulty=max_faulty))
        for hook in cfg.get('custom_hooks') or ()
        if 'train' in splits
    ]
    for part, key, rules in pipelines:
        steps = part.get(key)
        if steps and str(steps[0].get('type')) != CHECKED:
            step = dict(type=CHECKED, transforms=steps)
            part[key] = [dict(**step, **rules, **options)]


def label_range(model: dict) -> dict[str, int]:
    """Return which labels a model has classes for.

    Args:
        model (dict): Config of a model.

    Returns:
        dict[str, int]: ``num_classes`` and ``ignore_index``, each where it is
        known, as :class:`~mmmobilemamba.datasets.CheckedPipeline` takes them.
    """
    found, heads = {}, head_classes(model)
    if heads:
        found['num_classes'] = min(heads.values())
    ignore = (model.get('decode_head') or {}).get('ignore_index')
    if isinstance(ignore, int):
        found['ignore_index'] = ignore
    return found


def check_annotations(cfg: Config, splits: tuple[str, ...]) -> None:
    """Look for faults that a training would pass over or stop at later.

    The log gets a warning for each kind that goes on.

    Args:
        cfg (Config): Config of a run.
        splits (tuple[str]): Which of ``'train'``, ``'val'`` and ``'test'``
            the run reads.

    Raises:
        ValueError: There are no pictures, the class names are not those of
            the annotations, or more than the model has, or a file of
            annotations cannot be read.
    """
    from mmmobilemamba.datasets.coco_checks import check_coco

    heads = head_classes(cfg.get('model') or {})
    for split in splits:
        key = f'{split}_dataloader.dataset'
        loader = cfg.get(f'{split}_dataloader') or {}
        for name, dataset in innermost(loader.get('dataset'), key):
            classes = class_names(dataset)
            # Things and stuff of panoptic sets go to different heads.
            if 'Panoptic' not in str(dataset.get('type')):
                _compare(name, classes, heads)
            _check_pictures(name, dataset)
            _check_xml(name, dataset)
            path = coco_file(dataset)
            if path and os.path.getsize(path) <= _SMALL:
                report = check_coco(path, classes)
                for text in report.warnings:
                    print_log(text, 'current', logging.WARNING)
                if report.errors:
                    raise ValueError(f'{name}: {" ".join(report.errors)}')


def class_names(dataset: dict) -> tuple | str | None:
    """Return the class names of a data set.

    Args:
        dataset (dict): Config of a data set.

    Returns:
        tuple: Names as its config or its class gives them; None where only
        its files do.
    """
    metainfo = dataset.get('metainfo') or {}
    classes = metainfo.get('classes', metainfo.get('CLASSES'))
    if classes is None and 'type' in dataset:
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(dataset['type'])
        classes = (getattr(kind, 'METAINFO', None) or {}).get('classes')
    if isinstance(classes, str):
        return None if os.path.isfile(classes) else classes
    return None if classes is None else tuple(classes)


def coco_file(dataset: dict) -> str | None:
    """Return the annotation file of a data set in COCO's format.

    Args:
        dataset (dict): Config of a data set.

    Returns:
        str: Local file, or None where the data set is of another kind.
    """
    if str(dataset.get('type')).rpartition('.')[2] != 'CocoDataset':
        return None
    path = os.path.join(
        dataset.get('data_root') or '', dataset.get('ann_file') or ''
    )
    return path if os.path.isfile(path) else None


def _compare(name: str, classes, heads: dict[str, int]) -> None:
    if isinstance(classes, str):
        raise ValueError(
            f'{name}.metainfo.classes is the string {classes!r}; one class '
            f'is ({classes!r},), with a comma.'
        )
    if classes is None or not heads:
        return
    key, least = min(heads.items(), key=lambda item: item[1])
    if len(classes) > least:
        names = ', '.join(classes[:4]) + (', ...' if len(classes) > 4 else '')
        raise ValueError(
            f'{name} has {len(classes)} classes ({names}), {key} is {least}. '
            'Set metainfo of the data sets and num_classes of the heads to '
            'the same.'
        )


def _check_pictures(name: str, dataset: dict) -> None:
    """Check that a folder has pictures of the suffix in the config."""
    prefix = dataset.get('data_prefix')
    suffix = dataset.get('img_suffix', '.jpg')
    folder = prefix.get('img_path') if isinstance(prefix, dict) else None
    if (
        'seg_map_path' not in (prefix or ())
        or dataset.get('ann_file')
        or not folder
    ):
        return
    folder = os.path.join(dataset.get('data_root') or '', folder)
    if os.path.isdir(folder) and not any(
        list_dir_or_file(folder, list_dir=False, suffix=suffix, recursive=True)
    ):
        raise ValueError(
            f'{name}: {folder} has no file that ends in {suffix!r}, which is '
            'img_suffix.'
        )


def _check_xml(name: str, dataset: dict) -> None:
    """Check that each annotation in Pascal VOC's form can be read."""
    if str(dataset.get('type')).rpartition('.')[2] not in _XML_SETS:
        return
    root = dataset.get('data_root') or ''
    listed = os.path.join(root, dataset.get('ann_file') or '')
    if not os.path.isfile(listed):
        return
    part = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folder = os.path.join(root, part, dataset.get('ann_subdir', 'Annotations'))
    for picture in list_from_file(listed):
        path = os.path.join(folder, f'{picture}.xml')
        try:
            ElementTree.parse(path)
        except (OSError, ElementTree.ParseError) as error:
            raise ValueError(
                f'{name}: the annotation {path} cannot be read: {error}.'
            ) from error

"""Switching the checks of samples on, for any config."""

from collections.abc import Iterator

from mmengine.config import Config

from .data_paths import find_datasets, type_name


def _head_classes(model: dict) -> Iterator[int]:
    """Yield ``num_classes`` of every head, but proposals' heads."""
    for name, part in model.items():
        for head in part if isinstance(part, list | tuple) else [part]:
            if isinstance(head, dict) and name != 'rpn_head':
                classes = head.get('num_classes')
                if name.endswith('head') and isinstance(classes, int):
                    yield classes
                yield from _head_classes(head)


def label_range(model: dict) -> dict[str, int]:
    """Return which labels a model has classes for.

    Args:
        model (dict): Config of a model.

    Returns:
        dict[str, int]: ``num_classes`` and ``ignore_index``, each where it is
        known, as :class:`~mmmobilemamba.datasets.CheckedPipeline` takes them.
    """
    heads = list(_head_classes(model))
    found = dict(num_classes=min(heads)) if heads else {}
    head = model.get('decode_head')
    ignore = head.get('ignore_index') if isinstance(head, dict) else None
    if isinstance(ignore, int):
        found['ignore_index'] = ignore
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
    """
    options = label_range(cfg.get('model') or {})
    pipelines = []
    for split in splits:
        training = split == 'train'
        rules = dict(
            max_faulty=max_faulty if training else 0, drop_flat_boxes=training
        )
        found = find_datasets(cfg, split)
        pipelines += [(part, 'pipeline', rules) for _, part in found]
    # Other augmentations for the last epochs.
    pipelines += [
        (hook, 'switch_pipeline', dict(max_faulty=max_faulty))
        for hook in cfg.get('custom_hooks') or ()
        if 'train' in splits
    ]
    for part, key, rules in pipelines:
        steps = part.get(key)
        if steps and type_name(steps[0]) != 'CheckedPipeline':
            step = dict(type='mmmobilemamba.CheckedPipeline', transforms=steps)
            part[key] = [dict(**step, **rules, **options)]

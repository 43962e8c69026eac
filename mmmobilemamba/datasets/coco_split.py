"""Dividing one annotation file of COCO's form into two."""

import json
import os
from pathlib import Path

import numpy as np

from ..checkpoints.atomic import atomic_write
from .coco_checks import read_coco

_DRAWS = 500


def split_coco(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    val_share: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, dict[str, int]]:
    """Write ``train.json`` and ``val.json`` for the images of one file.

    An image with all its objects goes to one of both. Of many random choices
    the one is taken in which every class has its share of objects held out,
    as nearly as images allow.

    Args:
        source (str or PathLike): Annotation file.
        out_dir (str or PathLike): Folder that takes both, each written whole.
        val_share (float): Share of the images that is held out. Defaults to
            0.2.
        seed (int): Seed of the choice. Defaults to 0.
        overwrite (bool): Replace files that are there. Defaults to False.

    Returns:
        dict[str, dict[str, int]]: For ``'train'`` and ``'val'`` the number of
        ``'images'`` and of each class's objects.

    Raises:
        FileExistsError: A file is there, and ``overwrite`` is False.
        OSError: The source cannot be read.
        ValueError: It is not in COCO's form or has fewer than two images, or
            the share is out of range.
    """
    if not 0 < val_share < 1:
        raise ValueError(
            f'val_share must be between 0 and 1, got {val_share}.'
        )
    paths = [Path(out_dir, name) for name in ('train.json', 'val.json')]
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f'{path} exists; overwrite replaces it.')
    content = read_coco(source)
    images, objects = content['images'], content['annotations']
    if len(images) < 2:
        raise ValueError(f'{source} must list two images or more to be split.')
    rows = {image.get('id'): i for i, image in enumerate(images)}
    columns = {x.get('id'): i for i, x in enumerate(content['categories'])}
    counts = np.zeros((len(images), len(columns)), np.int64)
    try:
        for entry in objects:
            counts[rows[entry['image_id']], columns[entry['category_id']]] += 1
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'{source} cannot be split: an annotation is of an image or '
            f'category that is not listed, or lacks an entry ({error!r}); '
            'tools/misc/check_dataset.py names it.'
        ) from error
    held_out = _choose(counts, val_share, seed)
    summary = {}
    with atomic_write(paths[0]) as train, atomic_write(paths[1]) as val:
        for name, draft, chosen in (
            ('train', train, ~held_out),
            ('val', val, held_out),
        ):
            part = [x for x, use in zip(images, chosen) if use]
            ids = {image['id'] for image in part}
            inside = [x for x in objects if x['image_id'] in ids]
            text = json.dumps(dict(content, images=part, annotations=inside))
            draft.write_text(text)
            summary[name] = dict(images=len(part))
            for category, count in zip(
                content['categories'], counts[chosen].sum(0)
            ):
                summary[name][str(category['name'])] = int(count)
    return summary


def _choose(counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which images to hold out, (images, )."""
    total = len(counts)
    number = min(max(round(share * total), 1), total - 1)
    objects = np.maximum(counts.sum(0), 1)
    random = np.random.default_rng(seed)
    best, lowest = None, np.inf
    for _ in range(_DRAWS):
        chosen = random.permutation(total)[:number]
        shares = counts[chosen].sum(0) / objects
        # A class that one side lacks is worse than any imbalance.
        lacking = ((shares == 0) | (shares == 1)) & (counts.sum(0) > 1)
        cost = ((shares - share) ** 2).sum() + lacking.sum()
        if cost < lowest:
            best, lowest = chosen, cost
    held_out = np.zeros(total, bool)
    held_out[best] = True
    return held_out

"""Dividing one annotation file of COCO's form into two."""

import json
import os
from pathlib import Path

import numpy as np

from ..checkpoints.atomic import atomic_write

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
        FileNotFoundError: There is no source.
        ValueError: It is not in COCO's form or has fewer than two images, or
            the share is out of range.
    """
    if not 0 < val_share < 1:
        raise ValueError(
            f'val_share must be between 0 and 1, got {val_share}.'
        )
    paths = {name: Path(out_dir, f'{name}.json') for name in ('train', 'val')}
    for path in paths.values():
        if path.exists() and not overwrite:
            raise FileExistsError(f'{path} exists; overwrite replaces it.')
    content = _read(Path(source))
    names = [str(category['name']) for category in content['categories']]
    counts = _count(content, source)
    held_out = _choose(counts, val_share, seed)
    splits, summary = {}, {}
    for name, chosen in (('train', ~held_out), ('val', held_out)):
        images = [
            image
            for image, use in zip(content['images'], chosen, strict=True)
            if use
        ]
        ids = {image['id'] for image in images}
        objects = [
            entry
            for entry in content['annotations']
            if entry['image_id'] in ids
        ]
        splits[name] = dict(content, images=images, annotations=objects)
        boxes = counts[chosen].sum(0).tolist()
        summary[name] = dict(
            images=len(images), **dict(zip(names, boxes, strict=True))
        )
    with (
        atomic_write(paths['train']) as train,
        atomic_write(paths['val']) as val,
    ):
        train.write_text(json.dumps(splits['train']))
        val.write_text(json.dumps(splits['val']))
    return summary


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f'Annotation file {path} does not exist.')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}.') from error
    keys = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise ValueError(
            f"{path} is not in COCO's form, which has {', '.join(keys)}."
        )
    if len(content['images']) < 2:
        raise ValueError(
            f'{path} must list two images or more to be split, got '
            f'{len(content["images"])}.'
        )
    return content


def _count(content: dict, source: str | os.PathLike) -> np.ndarray:
    """Return the objects of each class, (images, classes)."""
    rows = {image['id']: i for i, image in enumerate(content['images'])}
    columns = {c['id']: i for i, c in enumerate(content['categories'])}
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for entry in content['annotations']:
        row = rows.get(entry['image_id'])
        column = columns.get(entry['category_id'])
        if row is None or column is None:
            raise ValueError(
                f'Annotation {entry.get("id")} of {source} is of image '
                f'{entry["image_id"]} and category {entry["category_id"]}, '
                'of which one is not listed.'
            )
        counts[row, column] += 1
    return counts


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

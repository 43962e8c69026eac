"""Annotation files of COCO's form: their faults, and dividing one into two."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..checkpoints.atomic import atomic_write

# What loading and evaluation read of each entry.
_FIELDS = {
    'images': 'id file_name height width'.split(),
    'categories': 'id name'.split(),
    'annotations': 'id image_id category_id iscrowd area bbox'.split(),
}


def _read(path: str | os.PathLike) -> dict:
    """Return the lists of a file, none of annotations for a test set."""
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}.') from error
    lists = content if isinstance(content, dict) else {}
    lists.setdefault('annotations', [])
    for key in _FIELDS:
        if not isinstance(lists.get(key), list):
            raise ValueError(f"{path} is not of COCO's form: no list {key!r}.")
    return lists


def coco_faults(
    path: str | os.PathLike, classes: Sequence[str], with_mask: bool = False
) -> Iterator[str]:
    """Yield faults that MMDetection passes over or stops at, with the entry.

    The classes are those of the data set, or none, and ``with_mask`` is for
    networks that need one of every object.
    """
    content = _read(path)
    sound = {key: {} for key in _FIELDS}
    for key in _FIELDS:
        for number, entry in enumerate(content[key]):
            try:
                fault = _fault_of(entry, key, sound, with_mask)
            except Exception as error:
                fault = f'a value of a wrong type, {error}'
            if fault:
                yield f'{path}: {key}[{number}] has {fault}: {entry!r:.200}'
            else:
                sound[key][entry['id']] = entry
    names = [category['name'] for category in sound['categories'].values()]
    if classes and [x for x in names if x in classes] != [*classes]:
        missing = ', '.join(x for x in classes if x not in names)
        yield (
            f'{path}: metainfo.classes differs in {missing or "its order"} '
            f'from the categories that labels follow, {", ".join(names)}.'
        )


def _fault_of(entry: dict, key: str, sound: dict, masks: bool) -> str | None:
    missing = [name for name in _FIELDS[key] if entry.get(name) is None]
    if missing:
        return f'no {" and no ".join(missing)}'
    if entry['id'] in sound[key]:
        return 'the id of another'
    if key == 'images':
        size = np.array([entry['height'], entry['width']])
        named = isinstance(entry['file_name'], str)
        whole = named and size.dtype.kind == 'i' and size.min() > 0
        return None if whole else 'a wrong file_name, height or width'
    if key == 'categories':
        return None
    # The evaluation takes 0 for "no match", and reckons with ids.
    crowd = entry['iscrowd']
    if entry['id'] == 0 or type(crowd) is not int or crowd not in (0, 1):
        return 'the id 0, or an iscrowd other than 0 and 1'
    image = sound['images'].get(entry['image_id'])
    if image is None or entry['category_id'] not in sound['categories']:
        return 'an unknown image_id or category_id'
    numbers = np.array([entry['id'], entry['area'], *entry['bbox']])
    # Others are NaN, or too large for the arrays of an evaluation.
    real = numbers.dtype.kind in 'if' and (abs(numbers) < 2**53).all()
    if len(numbers) != 6 or not real:
        return 'an id, area or bbox that is no number, or not four'
    _, area, x, y, width, height = numbers
    # What MMDetection's CocoDataset leaves out.
    if min(width, height) < 1 or area <= 0:
        return 'a box without area'
    columns = min(x + width, image['width']) - max(x, 0)
    rows = min(y + height, image['height']) - max(y, 0)
    if min(columns, rows) <= 0:
        return f'a box outside of {image["file_name"]}'
    mask = entry.get('segmentation')
    if not mask:
        return 'no mask' if masks else None
    if isinstance(mask, list):
        few = any(len(x) < 6 or len(x) % 2 for x in mask)
        return 'a polygon of fewer than three points' if few else None
    size, runs = [image['height'], image['width']], mask['counts']
    whole = isinstance(runs, str) or sum(runs) == size[0] * size[1]
    same = mask['size'] == size and whole
    return None if same else f'a mask of another size than {size}'


def split_coco(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, dict[str, int]]:
    """Write ``train.json`` and ``val.json`` for the images of one file.

    Of random choices of images take that with the same share of every class.

    Args:
        source (str or PathLike): Annotation file.
        out_dir (str or PathLike): Folder that takes both, each written whole.
        val_share (float): Share of images to hold out. Defaults to 0.2.
        seed (int): Seed of the choice. Defaults to 0.

    Returns:
        dict[str, dict[str, int]]: For ``'train'`` and ``'val'`` the number of
        ``'images'`` and of each class's objects.

    Raises:
        OSError: The source cannot be read, or a file is there.
        ValueError: The source cannot be divided so.
    """
    paths = [Path(out_dir, name) for name in ('train.json', 'val.json')]
    for path in paths:
        if path.exists():
            raise FileExistsError(f'{path} exists; remove it.')
    content = _read(source)
    images, objects = content['images'], content['annotations']
    if not 0 < val_share < 1 or len(images) < 2:
        what = f'a share {val_share} of {len(images)} images'
        raise ValueError(f'{source} cannot be divided by {what}.')
    names = {x.get('id'): str(x['name']) for x in content['categories']}
    rows = {image.get('id'): row for row, image in enumerate(images)}
    columns = {number: column for column, number in enumerate(names)}
    counts = np.zeros((len(images), len(names)), np.int64)
    for entry in objects:
        row, column = entry.get('image_id'), entry.get('category_id')
        if row not in rows or column not in columns:
            raise ValueError(f'{source} lists no image or category of {entry}')
        counts[rows[row], columns[column]] += 1
    held_out = _choose(counts, val_share, seed)
    summary = {}
    for path, chosen in zip(paths, (~held_out, held_out)):
        part = [image for image, use in zip(images, chosen) if use]
        ids = {image['id'] for image in part}
        inside = [x for x in objects if x['image_id'] in ids]
        text = json.dumps(dict(content, images=part, annotations=inside))
        with atomic_write(path) as draft:
            draft.write_text(text)
        totals = counts[chosen].sum(0).tolist()
        summary[path.stem] = dict(images=len(part))
        summary[path.stem].update(zip(names.values(), totals))
    return summary


def _choose(counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which images to hold out, (images, )."""
    total, objects = len(counts), counts.sum(0)
    number = min(max(round(share * total), 1), total - 1)
    random = np.random.default_rng(seed)
    draws = [random.permutation(total)[:number] for _ in range(500)]
    shares = np.stack([counts[draw].sum(0) for draw in draws])
    shares = shares / np.maximum(objects, 1)
    # A class that one side lacks is worse than any imbalance.
    lacking = ((shares == 0) | (shares == 1)) & (objects > 1)
    costs = ((shares - share) ** 2).sum(1) + lacking.sum(1)
    return np.isin(np.arange(total), draws[costs.argmin()])

"""Annotation files of COCO's form and their faults."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

# What loading and evaluation read of each entry.
_FIELDS = {
    'images': 'id file_name height width'.split(),
    'categories': 'id name'.split(),
    'annotations': 'id image_id category_id iscrowd area bbox'.split(),
}


def read_coco(path: str | os.PathLike) -> dict:
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
    content = read_coco(path)
    sound = {key: {} for key in (*_FIELDS, 'files')}
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
        if not whole:
            return 'a wrong file_name, height or width'
        other = sound['files'].setdefault(entry['file_name'], entry['id'])
        return None if other == entry['id'] else f'the file of image {other}'
    if key == 'categories':
        named = isinstance(entry['name'], str)
        return None if named else 'a name that is no text'
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

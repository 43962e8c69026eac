"""Faults of annotation files that MMDetection passes over or stops at."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from mmengine.fileio import list_from_file


def read_coco(path: str | os.PathLike) -> dict:
    """Read an annotation file in COCO's format.

    Args:
        path (str or PathLike): File.

    Returns:
        dict: Its content, with lists of ``images``, ``annotations`` (none in
        the file of a test set) and ``categories``.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or not in that format.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        empty = not os.path.getsize(path)
        raise ValueError(
            f'{path} is empty.' if empty else f'{path} is no JSON: {error}.'
        ) from error
    for key in ('images', 'categories', 'annotations'):
        part = content.get(key) if isinstance(content, dict) else None
        if part is None and key == 'annotations':
            content[key] = []
        elif not isinstance(part, list):
            raise ValueError(
                f'{path} is not in the format of COCO: it has no list {key!r}.'
            )
    return content


def check_coco(
    path: str | os.PathLike,
    classes: Sequence[str] | None = None,
    with_mask: bool = False,
) -> tuple[list[str], list[str]]:
    """Look for the faults of an annotation file in COCO's format.

    Args:
        path (str or PathLike): File.
        classes (Sequence[str], optional): Class names of the data set.
            Defaults to None, which leaves them unchecked.
        with_mask (bool): Whether masks are read. Defaults to False.

    Returns:
        tuple[list[str], list[str]]: Faults, each kind with its number and the
        first entry, and remarks on what is no fault.
    """
    try:
        content = read_coco(path)
    except (OSError, ValueError) as error:
        return [str(error)], []
    found: dict[str, list[str]] = defaultdict(list)
    images, categories, annotations = (
        _index(content[key], key, found) for key in _FORMS
    )
    filled = set()
    for number, entry in annotations.items():
        image = images.get(entry['image_id'])
        fault = _object_fault(entry, image, categories, with_mask)
        if fault:
            name = image['file_name'] if image else 'no image'
            where = f'annotation {number} of {name}: {fault[1]}'
            found[fault[0]].append(where)
        else:
            filled.add(entry['image_id'])
    faults = [
        f'{path}: {len(cases)} {kind}, first {cases[0]}.'
        for kind, cases in found.items()
    ]
    names = [category['name'] for category in categories.values()]
    missing = [name for name in classes or () if name not in names]
    order = tuple(name for name in names if name in (classes or ()))
    if missing:
        faults.append(
            f'metainfo.classes names {", ".join(missing)}, which {path} does '
            f'not have; its categories are {", ".join(names)}. The labels of '
            'the others would move.'
        )
    elif classes and order != tuple(classes):
        faults.append(
            'metainfo.classes has another order than the categories of '
            f'{path}, which labels are counted by, so that predictions would '
            f'bear wrong names. Write them as {order!r}.'
        )
    total = len(content['images'])
    empty = total - len(filled)
    return faults, [f'{path}: {empty} of {total} images have no usable box.']


def check_voc(
    listed: str, folder: str, classes: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Look for the faults of annotation files in Pascal VOC's format.

    Args:
        listed (str): Text file with the name of an image on each line.
        folder (str): Folder of the XML files.
        classes (Sequence[str]): Class names of the data set.

    Returns:
        tuple[list[str], list[str]]: Faults, each with its file and object,
        and remarks on what is no fault.
    """
    faults, others = [], Counter()
    for name in list_from_file(listed):
        path = os.path.join(folder, f'{name}.xml')
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            faults.append(f'{path} cannot be read: {error}.')
            continue
        size = root.find('size')
        for side in ('width', 'height') if size is not None else ():
            text = size.findtext(side, '')
            if not text.strip().isdigit() or int(text) < 1:
                faults.append(f'{path}: {side} is {text!r}, no size.')
        for number, entry in enumerate(root.findall('object')):
            kind = entry.findtext('name')
            if kind not in classes:
                others[str(kind)] += 1
                continue
            texts = {'difficult': entry.findtext('difficult', '0')}
            for key in ('xmin', 'ymin', 'xmax', 'ymax'):
                texts[key] = entry.findtext(f'bndbox/{key}', '')
            for key, text in texts.items():
                try:
                    (int if key == 'difficult' else float)(text)
                except ValueError:
                    faults.append(
                        f'{path}: {key} of object {number} is {text!r}, no '
                        'number.'
                    )
    remarks = [
        f'{listed}: {count} objects named {kind!r}, which is no class, are '
        'left out.'
        for kind, count in others.items()
    ]
    return faults, remarks


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_id(value: object) -> bool:
    return type(value) in (int, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_side(value: object) -> bool:
    return type(value) is int and value > 0


# What loading and evaluation read of each entry.
_FORMS: dict[str, dict[str, Callable]] = {
    'images': dict(
        id=_is_id, file_name=_is_name, height=_is_side, width=_is_side
    ),
    'categories': dict(id=_is_id, name=_is_name),
    'annotations': dict(
        # The evaluation takes 0 for "no match", and reckons with ids.
        id=lambda v: _is_number(v) and v != 0,
        image_id=_is_id,
        category_id=_is_id,
        bbox=lambda v: isinstance(v, list) and _are_numbers(v, 4, 4),
        area=_is_number,
        iscrowd=lambda v: v in (0, 1),
    ),
}


def _are_numbers(values: list, least: int, most: float) -> bool:
    return least <= len(values) <= most and all(map(_is_number, values))


def _index(entries: list, key: str, found: dict) -> dict:
    """Return the sound entries of a list by id, and note the others."""
    sound = {}
    for number, entry in enumerate(entries):
        where = f'entry {number}'
        if not isinstance(entry, dict):
            found[f'wrong {key}'].append(f'{where} is {entry!r}')
            continue
        where += f' (id {entry.get("id")!r})'
        wrong = [
            k for k, fits in _FORMS[key].items() if not fits(entry.get(k))
        ]
        if wrong:
            name = wrong[0]
            kind = 'with a wrong' if name in entry else 'without'
            value = f' {entry[name]!r}' if name in entry else ''
            found[f'{key} {kind} {name}'].append(f'{where}: {name}{value}')
        elif entry['id'] in sound:
            found[f'{key} with the id of another'].append(where)
        else:
            sound[entry['id']] = entry
    return sound


def _object_fault(
    entry: dict, image: dict | None, categories: dict, with_mask: bool
) -> tuple[str, str] | None:
    """Return the kind of fault of an annotation and what it is."""
    if image is None:
        what = f'image_id {entry["image_id"]!r}'
        return 'annotations of unknown images', what
    if entry['category_id'] not in categories:
        known = ', '.join(map(str, categories))
        what = f'category_id {entry["category_id"]!r}, the file has {known}'
        return 'annotations of unknown categories', what
    (x, y, width, height), area = entry['bbox'], entry['area']
    size = [image['height'], image['width']]
    # What MMDetection's CocoDataset leaves out.
    if width < 1 or height < 1 or area <= 0:
        return 'boxes without area', f'bbox {entry["bbox"]}, area {area}'
    if min(x + width, size[1]) <= max(x, 0) or (
        min(y + height, size[0]) <= max(y, 0)
    ):
        what = f'bbox {entry["bbox"]} in {size[1]}x{size[0]}'
        return 'boxes outside of their image', what
    mask = entry.get('segmentation')
    what = f'segmentation {str(mask)[:60]}'
    if not mask:
        return ('objects without a mask', what) if with_mask else None
    if isinstance(mask, dict):
        if 'counts' not in mask or mask.get('size') != size:
            return 'masks of another size than their image', what
    elif not isinstance(mask, list) or not all(
        isinstance(polygon, list)
        and len(polygon) % 2 == 0
        and _are_numbers(polygon, 6, math.inf)
        for polygon in mask
    ):
        return 'polygons of fewer than three points, or of no numbers', what
    return None

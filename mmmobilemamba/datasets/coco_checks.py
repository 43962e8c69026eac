"""Faults of a COCO annotation file that MMDetection passes over in silence."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class CocoReport:
    """What is in an annotation file.

    Args:
        errors (list[str]): What makes a training learn nonsense or stop.
        warnings (list[str]): What is left out of a training.
        boxes (dict[str, int]): Usable boxes of each class.
        empty (int): Pictures without a usable box.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    boxes: dict[str, int] = field(default_factory=dict)
    empty: int = 0


def read_coco(path: str | os.PathLike) -> dict:
    """Read an annotation file in COCO's format.

    Args:
        path (str or PathLike): File.

    Returns:
        dict: Its content, with ``images``, ``annotations`` and
        ``categories``.

    Raises:
        ValueError: It is empty, no JSON, or not in that format.
    """
    if not os.path.getsize(path):
        raise ValueError(f'{path} is empty.')
    with open(path, encoding='utf-8') as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f'{path} is no JSON file: {error}.') from error
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content, dict) or key not in content:
            raise ValueError(
                f'{path} is not in the format of COCO: it has no {key!r}.'
            )
    return content


def check_coco(
    path: str | os.PathLike, classes: Sequence[str] | None
) -> CocoReport:
    """Look for the faults of an annotation file.

    Args:
        path (str or PathLike): File.
        classes (Sequence[str], optional): Class names of the data set; None
            takes the categories of the file.

    Returns:
        CocoReport: Each kind of fault with its number and the first case.
    """
    try:
        content = read_coco(path)
    except ValueError as error:
        return CocoReport(errors=[str(error)])
    categories = {c['id']: c['name'] for c in content['categories']}
    if classes is None:
        classes = list(categories.values())
    report = CocoReport(boxes=dict.fromkeys(classes, 0))
    report.errors += _class_errors(path, classes, list(categories.values()))

    images = {image['id']: image for image in content['images']}
    found = defaultdict(list)
    filled = set()
    for annotation in content['annotations']:
        image = images.get(annotation.get('image_id'))
        kind, what = _annotation_fault(annotation, image, categories)
        if kind:
            name = image['file_name'] if image else 'no picture'
            where = f'annotation {annotation.get("id", "?")} of {name}'
            found[kind].append(f'{where}: {what}')
        else:
            filled.add(annotation['image_id'])
            report.boxes[categories[annotation['category_id']]] = (
                report.boxes.get(categories[annotation['category_id']], 0) + 1
            )
    for kind, cases in found.items():
        serious = kind in _ERRORS
        (report.errors if serious else report.warnings).append(
            f'{path}: {len(cases)} {kind}, first {cases[0]}.'
        )
    report.boxes = {name: report.boxes[name] for name in classes}
    report.empty = len(images) - len(filled & set(images))
    if not any(report.boxes.values()) and not report.errors:
        report.errors.append(f'{path} has no usable box of any class.')
    twice = [n for n, k in Counter(_ids(content)).items() if k > 1]
    if twice:
        report.errors.append(
            f'{path}: {len(twice)} annotation ids occur twice, first '
            f'{twice[0]}.'
        )
    return report


_ERRORS = ('incomplete annotations', 'unknown categories')


def _annotation_fault(annotation, image, categories) -> tuple[str, str]:
    """Return the kind of fault and what it is, or two empty strings."""
    for key in ('image_id', 'category_id', 'bbox', 'area'):
        if key not in annotation:
            return 'incomplete annotations', f'no {key!r}'
    box = annotation['bbox']
    if len(box) != 4:
        return 'incomplete annotations', f'bbox {box} has not four numbers'
    if annotation['category_id'] not in categories:
        return (
            'unknown categories',
            f'category_id {annotation["category_id"]}, the file has '
            f'{", ".join(map(str, sorted(categories)))}',
        )
    if image is None:
        return (
            'annotations of unknown pictures',
            f'image_id {annotation["image_id"]}',
        )
    x, y, width, height = box
    area = annotation['area']
    if not all(map(math.isfinite, (*box, area))):
        return 'boxes that are no numbers', f'bbox {box}, area {area}'
    # What MMDetection's CocoDataset drops.
    if width < 1 or height < 1 or area <= 0:
        return 'boxes without area', f'bbox {box}, area {area}'
    if min(x + width, image['width']) <= max(x, 0) or min(
        y + height, image['height']
    ) <= max(y, 0):
        return (
            'boxes outside of their picture',
            f'bbox {box} in {image["width"]}x{image["height"]}',
        )
    mask, size = annotation.get('segmentation'), None
    if isinstance(mask, dict):
        size = mask.get('size')
    if size and list(size) != [image['height'], image['width']]:
        return (
            'masks of another size than their picture',
            f'{size[1]}x{size[0]} in {image["width"]}x{image["height"]}',
        )
    return '', ''


def _class_errors(path, classes, categories) -> list[str]:
    """Compare names: labels are counted in the order of the file."""
    if isinstance(classes, str):
        return [
            f'metainfo.classes is the string {classes!r}; one class is '
            f'({classes!r},), with a comma.'
        ]
    missing = [name for name in classes if name not in categories]
    if missing:
        return [
            f'metainfo.classes names {", ".join(missing)}, which {path} does '
            f'not have; its categories are {", ".join(categories)}. The '
            'labels of the others would move.'
        ]
    order = [name for name in categories if name in classes]
    if order != list(classes):
        return [
            f'metainfo.classes has another order than the categories of '
            f'{path}, which labels are counted by, so that predictions would '
            f'bear wrong names. Write them as {tuple(order)!r}.'
        ]
    return []


def _ids(content: dict) -> list:
    return [a['id'] for a in content['annotations'] if 'id' in a]

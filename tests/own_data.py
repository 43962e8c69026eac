"""Tiny data sets in the four usual forms, drawn at random."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
_BOX = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def draw(path: Path, seed: int) -> None:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (SIDE, SIDE + 16, 3), np.uint8)
    Image.fromarray(noise).save(path)


def make_voc(root: Path, classes: tuple[str, ...]) -> None:
    """Write four images with boxes, one of each two without area."""
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        draw(root / f'JPEGImages/photo_{index}.jpg', index)
        # As in BCCD: annotated by a click without a drag.
        flat = [(50, 50, 50, 50)] * (index % 2)
        boxes = [(8, 8, 30, 28), (20, 24, 60, 56), *flat]
        names = [*classes, *classes, *classes]
        objects = [_BOX.format(n, *box) for n, box in zip(names, boxes)]
        size = f'<width>{SIDE + 16}</width><height>{SIDE}</height>'
        (root / f'Annotations/photo_{index}.xml').write_text(
            f'<annotation><size>{size}</size>{"".join(objects)}</annotation>'
        )
    lists = root / 'ImageSets/Main'
    (lists / 'train.txt').write_text('photo_0\nphoto_1\n')
    (lists / 'val.txt').write_text('photo_2\nphoto_3\n')


def make_coco(root: Path, classes: tuple[str, ...], flat: bool = True) -> None:
    """Write images with polygons, and one object of each without area."""
    annotations = []
    for image in range(4):
        draw(root / 'images' / f'{image}.jpg', image)
        boxes = [(8 + 10 * n, 8, 24, 30) for n in range(len(classes))]
        boxes += [(50, 50, 0, 0)] * flat
        for number, (x, y, w, h) in enumerate(boxes):
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image,
                category_id=number % len(classes) + 1,
                iscrowd=0,
                bbox=[x, y, w, h],
                area=w * h,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
            )
            annotations.append(annotation)
    size = dict(width=SIDE + 16, height=SIDE)
    content = dict(
        images=[dict(size, id=i, file_name=f'{i}.jpg') for i in range(4)],
        annotations=annotations,
        categories=[dict(id=n, name=x) for n, x in enumerate(classes, 1)],
    )
    (root / 'all.json').write_text(json.dumps(content))


def make_labels(root: Path, num_classes: int, void: int) -> None:
    """Write four images and label images with every class and void."""
    for index in range(4):
        name = f'{"train" if index < 2 else "test"}/{index}'
        draw(root / 'images' / f'{name}.jpg', index)
        path = root / 'labels' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.arange(SIDE * (SIDE + 16)).reshape(SIDE, SIDE + 16)
        labels = labels // 40 % num_classes
        labels[:8] = void
        Image.fromarray(labels.astype(np.uint8)).save(path)


def make_folders(root: Path, classes: tuple[str, ...]) -> None:
    """Write two images of each class for training and one to hold out."""
    for number, name in enumerate(classes):
        for index, split in enumerate(('train', 'train', 'test')):
            draw(root / split / name / f'{index}.png', 10 * number + index)


CLASSES = ('disc', 'ring')
LABELS = dict(type='LoadAnnotations')


def _case(scope, head, root, steps, **dataset):
    """The same as data sets of the libraries: scope, model and data set."""
    dataset.update(data_root=str(root), metainfo=dict(classes=CLASSES))
    dataset.update(pipeline=[dict(type='LoadImageFromFile'), *steps])
    return scope, dict(model={head: dict(num_classes=2)}), dataset


def coco(root):
    make_coco(root, CLASSES, flat=False)
    steps = [dict(LABELS, with_mask=True)]
    data = dict(ann_file='all.json', data_prefix=dict(img='images/'))
    return _case('mmdet', 'bbox_head', root, steps, type='CocoDataset', **data)


def voc(root):
    make_voc(root, CLASSES)
    (root / 'list.txt').write_text('photo_0\nphoto_2\n')
    data = dict(ann_file='list.txt', data_prefix=dict(sub_data_root=''))
    data.update(type='VOCDataset', filter_cfg=dict(bbox_min_size=32))
    return _case('mmdet', 'bbox_head', root, [LABELS], **data)


def labels(root):
    make_labels(root, 2, 255)
    prefix = dict(img_path='images/train', seg_map_path='labels/train')
    data = dict(type='BaseSegDataset', data_prefix=prefix)
    return _case('mmseg', 'decode_head', root, [LABELS], **data)


def folders(root):
    make_folders(root, CLASSES)
    data = dict(type='CustomDataset', data_prefix='train')
    return _case('mmpretrain', 'head', root, [], **data)

"""Tiny data sets in the four usual forms, drawn at random."""

import json
from pathlib import Path

import cv2
import numpy as np

SIDE = 64
_BOX = """  <object><name>{name}</name><bndbox>
    <xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>
  </bndbox></object>
"""
# As in BCCD: annotated by a click without a drag.
NO_AREA = (50, 50, 50, 50)


def draw(path: Path, seed: int) -> None:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (SIDE, SIDE + 16, 3), np.uint8)
    cv2.imwrite(str(path), noise)


def make_voc(root: Path, classes: tuple[str, ...]) -> Path:
    """Write four pictures with boxes, one of each two without area."""
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    names = [f'photo_{index}' for index in range(4)]
    for index, name in enumerate(names):
        draw(root / 'JPEGImages' / f'{name}.jpg', index)
        boxes = [(8, 8, 30, 28), (20, 24, 60, 56)] + [NO_AREA] * (index % 2)
        objects = ''.join(
            _BOX.format(*box, name=classes[number % len(classes)])
            for number, box in enumerate(boxes)
        )
        size = f'<width>{SIDE + 16}</width><height>{SIDE}</height>'
        (root / 'Annotations' / f'{name}.xml').write_text(
            f'<annotation><size>{size}</size>\n{objects}</annotation>\n'
        )
    for split, part in (('train', names[:2]), ('val', names[2:])):
        text = '\n'.join(part) + '\n'
        (root / 'ImageSets/Main' / f'{split}.txt').write_text(text)
    return root


def make_coco(root: Path, classes: tuple[str, ...], count: int = 4) -> Path:
    """Write pictures and one annotation file, with a polygon of each class.

    Category ids begin at 1, and one object has no area.
    """
    annotations = []
    for image in range(count):
        draw(root / 'images' / f'{image}.jpg', image)
        boxes = [(8 + 10 * n, 8, 24, 30) for n in range(len(classes))]
        for number, (x, y, w, h) in enumerate([*boxes, (50, 50, 0, 0)]):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=number % len(classes) + 1,
                    iscrowd=0,
                    bbox=[x, y, w, h],
                    area=w * h,
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                )
            )
    content = dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=SIDE + 16, height=SIDE)
            for i in range(count)
        ],
        annotations=annotations,
        categories=[
            dict(id=number, name=name)
            for number, name in enumerate(classes, 1)
        ],
    )
    (root / 'all.json').write_text(json.dumps(content))
    return root


def make_labels(root: Path, num_classes: int, void: int) -> Path:
    """Write four pictures and label images with every class and void."""
    for index in range(4):
        split = 'train' if index < 2 else 'test'
        draw(root / 'images' / split / f'{index}.jpg', index)
        path = root / 'labels' / split / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.arange(SIDE * (SIDE + 16)).reshape(SIDE, SIDE + 16)
        labels = labels // 40 % num_classes
        labels[:8] = void
        cv2.imwrite(str(path), labels.astype(np.uint8))
    return root


def make_folders(root: Path, classes: tuple[str, ...]) -> Path:
    """Write two pictures of each class for training and one to hold out."""
    for number, name in enumerate(classes):
        for index in range(3):
            split = 'train' if index < 2 else 'test'
            draw(root / split / name / f'{index}.png', 10 * number + index)
    return root


# The same as data sets of the libraries: scope, model and data set.
CLASSES = ('disc', 'ring')
LOAD = dict(type='LoadImageFromFile')
BOXES = dict(type='LoadAnnotations', with_bbox=True)
DETECTOR = dict(bbox_head=dict(num_classes=2))


def coco(root):
    make_coco(root, CLASSES, 2)
    content = json.loads((root / 'all.json').read_text())
    content['annotations'] = content['annotations'][:2]
    (root / 'all.json').write_text(json.dumps(content))
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='all.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[LOAD, dict(BOXES, with_mask=True)],
    )
    return 'mmdet', dict(model=DETECTOR), dataset


def voc(root):
    make_voc(root, CLASSES)
    dataset = dict(
        type='VOCDataset',
        data_root=f'{root}/',
        ann_file='list.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=CLASSES),
        pipeline=[LOAD, BOXES],
    )
    (root / 'list.txt').write_text('photo_0\nphoto_2\n')
    return 'mmdet', dict(model=DETECTOR), dataset


def labels(root):
    make_labels(root, 2, 255)
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        metainfo=dict(classes=CLASSES),
        pipeline=[LOAD, dict(type='LoadAnnotations')],
    )
    return 'mmseg', dict(model=dict(decode_head=dict(num_classes=2))), dataset


def folders(root):
    make_folders(root, CLASSES)
    dataset = dict(
        type='CustomDataset',
        data_root=str(root),
        data_prefix='train',
        metainfo=dict(classes=CLASSES),
        pipeline=[LOAD],
    )
    return 'mmpretrain', dict(model=dict(head=dict(num_classes=2))), dataset

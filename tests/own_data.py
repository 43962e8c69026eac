"""Tiny data sets in the four usual forms, drawn at random."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
_BOX = """  <object><name>{name}</name><bndbox>
    <xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>
  </bndbox></object>
"""


def draw(path: Path, seed: int) -> None:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (SIDE, SIDE + 16, 3), np.uint8)
    Image.fromarray(noise).save(path)


def make_voc(root: Path, classes: tuple[str, ...]) -> Path:
    """Write four images with boxes, one of each two without area."""
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    names = [f'photo_{index}' for index in range(4)]
    for index, name in enumerate(names):
        draw(root / 'JPEGImages' / f'{name}.jpg', index)
        # As in BCCD: annotated by a click without a drag.
        flat = [(50, 50, 50, 50)] * (index % 2)
        boxes = [(8, 8, 30, 28), (20, 24, 60, 56), *flat]
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


def make_coco(
    root: Path,
    classes: tuple[str, ...],
    count: int = 4,
    flat: tuple = ((50, 50, 0, 0),),
) -> Path:
    """Write images and one annotation file, with a polygon of each class.

    Category ids begin at 1, and one object has no area.
    """
    annotations = []
    for image in range(count):
        draw(root / 'images' / f'{image}.jpg', image)
        boxes = [(8 + 10 * n, 8, 24, 30) for n in range(len(classes))]
        for number, (x, y, w, h) in enumerate([*boxes, *flat]):
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
        categories=[dict(id=n, name=x) for n, x in enumerate(classes, 1)],
    )
    (root / 'all.json').write_text(json.dumps(content))
    return root


def make_labels(root: Path, num_classes: int, void: int) -> Path:
    """Write four images and label images with every class and void."""
    for index in range(4):
        split = 'train' if index < 2 else 'test'
        draw(root / 'images' / split / f'{index}.jpg', index)
        path = root / 'labels' / split / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.arange(SIDE * (SIDE + 16)).reshape(SIDE, SIDE + 16)
        labels = labels // 40 % num_classes
        labels[:8] = void
        Image.fromarray(labels.astype(np.uint8)).save(path)
    return root


def make_folders(root: Path, classes: tuple[str, ...]) -> Path:
    """Write two images of each class for training and one to hold out."""
    for number, name in enumerate(classes):
        for index in range(3):
            split = 'train' if index < 2 else 'test'
            draw(root / split / name / f'{index}.png', 10 * number + index)
    return root


# The same as data sets of the libraries: scope, model and data set.
CLASSES = ('disc', 'ring')
LOAD = dict(type='LoadImageFromFile')
LABELS = dict(type='LoadAnnotations')


def _case(scope, head, root, pipeline, **dataset):
    dataset.update(
        data_root=str(root),
        metainfo=dict(classes=CLASSES),
        pipeline=[LOAD, *pipeline],
    )
    return scope, dict(model={head: dict(num_classes=2)}), dataset


def coco(root):
    make_coco(root, CLASSES, 2, flat=())
    return _case(
        *('mmdet', 'bbox_head', root),
        [dict(LABELS, with_bbox=True, with_mask=True)],
        type='CocoDataset',
        ann_file='all.json',
        data_prefix=dict(img='images/'),
    )


def voc(root):
    make_voc(root, CLASSES)
    (root / 'list.txt').write_text('photo_0\nphoto_2\n')
    return _case(
        *('mmdet', 'bbox_head', root, [dict(LABELS, with_bbox=True)]),
        type='VOCDataset',
        filter_cfg=dict(min_size=32, bbox_min_size=32),
        ann_file='list.txt',
        data_prefix=dict(sub_data_root=''),
    )


def labels(root):
    make_labels(root, 2, 255)
    prefix = dict(img_path='images/train', seg_map_path='labels/train')
    return _case(
        *('mmseg', 'decode_head', root, [LABELS]),
        type='BaseSegDataset',
        data_prefix=prefix,
    )


def folders(root):
    make_folders(root, CLASSES)
    return _case(
        *('mmpretrain', 'head', root, []),
        type='CustomDataset',
        data_prefix='train',
    )

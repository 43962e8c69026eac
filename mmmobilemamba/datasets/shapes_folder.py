"""The embedded data set: shape scenes as COCO json and as label maps."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np

from .shapes import (
    MIN_VISIBLE,
    SHAPES_CLASSES,
    check_int,
    check_sizes,
    make_scene,
)

# Part of the recorded settings: raise it whenever the same settings would
# give other pixels, so that old folders are not taken for new ones.
GENERATOR_VERSION = 1
SETTINGS_FILE = 'shapes.json'


def make_shapes(
    out_dir: str | os.PathLike,
    num_train: int = 800,
    num_val: int = 100,
    size: int = 160,
    seed: int = 0,
    val_seed: int | None = None,
    min_object: int = 20,
    max_object: int = 80,
    overwrite: bool = False,
) -> bool:
    """Write a training and a validation set for detection and segmentation.

    The folder appears whole or not at all::

        out_dir/shapes.json                     the settings, for re-use
        out_dir/images/{train,val}/000000.png
        out_dir/annotations/instances_{train,val}.json   COCO, RLE masks
        out_dir/labels/{train,val}/000000.png   one class id per pixel

    Label maps hold 0 for the ground and 1, 2, ... for
    :data:`SHAPES_CLASSES`, to be read without ``reduce_zero_label``. In the
    COCO files the category ids are 1, 2, ... too.

    Args:
        out_dir (str | os.PathLike): The folder to write.
        num_train (int): Number of training scenes. Defaults to 800.
        num_val (int): Number of held-out scenes. Defaults to 100.
        size (int): Side of the images in pixels. Defaults to 160.
        seed (int): Seed of the training scenes. Defaults to 0.
        val_seed (int, optional): Seed of the held-out scenes, another one
            than ``seed``. Defaults to None, which is ``seed + 1000000``.
        min_object (int): Smallest side of an object in pixels.
            Defaults to 20.
        max_object (int): Largest side of an object in pixels.
            Defaults to 80.
        overwrite (bool): Whether to replace a folder that was made with
            other settings. Defaults to False.

    Returns:
        bool: True if the folder was written, False if it already held the
        very same data and was left alone.

    Raises:
        ValueError: If an argument is out of range.
        FileExistsError: If ``out_dir`` holds something else.
    """
    if val_seed is None:
        val_seed = seed + 1000000
    check_int('num_train', num_train, 1)
    check_int('num_val', num_val, 1)
    check_int('seed', seed, 0)
    check_int('val_seed', val_seed, 0)
    if val_seed == seed:
        raise ValueError(
            'val_seed must differ from seed, or the held-out '
            f'scenes are training scenes; both are {seed}'
        )
    check_sizes(size, min_object, max_object)
    settings = dict(
        generator_version=GENERATOR_VERSION,
        num_train=num_train,
        num_val=num_val,
        size=size,
        seed=seed,
        val_seed=val_seed,
        min_object=min_object,
        max_object=max_object,
    )

    out_dir = Path(out_dir).absolute()
    if _can_reuse(out_dir, settings, overwrite):
        return False
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    temp_dir = Path(
        tempfile.mkdtemp(prefix=f'.{out_dir.name}-', dir=out_dir.parent)
    )
    try:
        fresh = temp_dir / 'new'
        for split, count, split_seed in (
            ('train', num_train, seed),
            ('val', num_val, val_seed),
        ):
            _write_split(
                fresh, split, count, split_seed, size, min_object, max_object
            )
        (fresh / SETTINGS_FILE).write_text(json.dumps(settings, indent=2))
        if out_dir.exists():
            # a plain rename over an empty folder is not portable
            out_dir.rename(temp_dir / 'old')
        fresh.rename(out_dir)
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)
    return True


def _can_reuse(out_dir: Path, settings: dict, overwrite: bool) -> bool:
    """Tell whether the folder holds this data; raise if it holds another."""
    if not out_dir.exists():
        return False
    if not out_dir.is_dir():
        raise FileExistsError(f'{out_dir} is a file, not a folder')
    if not any(out_dir.iterdir()):
        return False
    settings_file = out_dir / SETTINGS_FILE
    if not settings_file.is_file():
        raise FileExistsError(
            f'{out_dir} is not empty and was not made by this generator (it '
            f'has no {SETTINGS_FILE}); choose another folder'
        )
    found = json.loads(settings_file.read_text())
    if found == settings:
        return True
    if overwrite:
        return False
    other = [
        f'{key} is {found.get(key)}, asked for {value}'
        for key, value in settings.items()
        if found.get(key) != value
    ]
    raise FileExistsError(
        f'{out_dir} holds shapes made with other settings '
        f'({"; ".join(other)}); choose another folder or overwrite it'
    )


def _write_split(
    root: Path,
    split: str,
    count: int,
    seed: int,
    size: int,
    min_object: int,
    max_object: int,
) -> None:
    # comes with mmdet; reading the constants above must not need it
    from pycocotools import mask as coco_mask

    image_dir = root / 'images' / split
    label_dir = root / 'labels' / split
    for folder in (image_dir, label_dir, root / 'annotations'):
        folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        scene = make_scene(index, seed, size, min_object, max_object)
        name = f'{index:06d}.png'
        _write_png(image_dir / name, scene.image[..., ::-1])
        _write_png(label_dir / name, scene.label_map())
        images.append(
            dict(id=index + 1, file_name=name, width=size, height=size)
        )
        for mask, label in zip(scene.masks, scene.labels):
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            rle['counts'] = rle['counts'].decode('ascii')
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=int(label) + 1,
                    segmentation=rle,
                    area=int(mask.sum()),
                    bbox=_bbox(mask),
                    iscrowd=0,
                )
            )
    coco = dict(
        info=dict(
            description='Geometric shapes on textured ground; objects are '
            f'visible to at least {MIN_VISIBLE:.0%}',
            seed=seed,
            version=str(GENERATOR_VERSION),
        ),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[
            dict(id=number, name=name, supercategory='shape')
            for number, name in enumerate(SHAPES_CLASSES, 1)
        ],
    )
    path = root / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(coco))


def _bbox(mask: np.ndarray) -> list[float]:
    """Return the tight box of a mask as x, y, width, height in pixels."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = cols[0], rows[0]
    width, height = cols[-1] + 1 - left, rows[-1] + 1 - top
    return [float(left), float(top), float(width), float(height)]


def _write_png(path: Path, pixels: np.ndarray) -> None:
    # cv2.imwrite returns False instead of raising
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f'cannot write {path}')

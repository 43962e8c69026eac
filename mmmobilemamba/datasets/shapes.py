"""The embedded data set: scenes of geometric shapes, drawn from a seed."""

import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SHAPES_CLASSES = ('circle', 'rectangle', 'triangle')
SHAPES_PALETTE = [(220, 60, 60), (60, 180, 75), (65, 105, 225)]
# In label maps the ground is class 0 and takes part in the mean IoU.
SHAPES_SEG_CLASSES = ('ground', *SHAPES_CLASSES)
SHAPES_SEG_PALETTE = [(128, 128, 128), *SHAPES_PALETTE]

_MAX_OBJECTS = 5
_MIN_VISIBLE = 0.4
# To be raised whenever the same settings would give other pixels.
_VERSION = 1
_SUBPIXELS = 4
_PLACING_TRIES = 30
_MIN_CONTRAST = 90.0


def make_scene(index: int, seed: int = 0, size: int = 160) -> tuple:
    """Draw one scene, the same one for the same arguments.

    It holds one to five objects of random class, colour, rotation and size,
    from an eighth to half of the image's. Circles are plain, rectangles
    striped and triangles chequered. At most 60 % of an object is hidden.

    Args:
        index (int): Number of the scene within its seed.
        seed (int): Seed of the series. Defaults to 0.
        size (int): Side of the image in pixels, 64 or more. Defaults to 160.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: Image, RGB, uint8, (size,
        size, 3); visible pixels of each object, bool, (objects, size, size);
        and its index into :data:`SHAPES_CLASSES`, int64, (objects, ).
    """
    if size < 64:
        raise ValueError(f'size must be at least 64, got {size}.')
    rng = np.random.default_rng([seed, index])
    painter = _Painter(rng, size)
    image = painter.ground()
    ground_colour = image.mean((0, 1))
    owners = np.zeros((size, size), np.int64)  # number of the object, or 0
    labels, areas = [], []
    for _ in range(int(rng.integers(1, _MAX_OBJECTS + 1))):
        label = int(rng.integers(len(SHAPES_CLASSES)))
        kind = SHAPES_CLASSES[label]
        outline = painter.outline(kind)
        for _ in range(_PLACING_TRIES):
            offset = rng.uniform(0, size - outline.max(0))
            coverage = painter.coverage(outline + offset)
            full = coverage >= 0.5
            left = np.bincount(owners[~full], minlength=len(areas) + 1)[1:]
            if (left >= _MIN_VISIBLE * np.array(areas)).all():
                break
        else:
            continue  # no place for it
        labels.append(label)
        areas.append(full.sum())
        owners[full] = len(labels)
        surface = painter.surface(kind, ground_colour)
        image += coverage[..., None] * (surface - image)
    masks = owners == np.arange(1, len(labels) + 1)[:, None, None]
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return image, masks, np.array(labels, dtype=np.int64)


class _Painter:
    """Textures (size, size, channels) and outlines from random numbers."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size

    def smooth_noise(self, cells: int, channels: int) -> np.ndarray:
        """Return noise in [-1, 1] without detail finer than size / cells."""
        grid = self.rng.uniform(-1, 1, (cells, cells, channels))
        side = self.size, self.size
        cubic = dict(interpolation=cv2.INTER_CUBIC)
        noise = cv2.resize(grid.astype(np.float32), side, **cubic)
        return noise.reshape(*side, channels)

    def stripes(self, shortest: float, longest: float) -> np.ndarray:
        """Return stripes in [-1, 1] of any direction, periods in pixels."""
        angle = self.rng.uniform(0, np.pi)
        period = self.rng.uniform(shortest, longest)
        rows, cols = np.mgrid[: self.size, : self.size].astype(np.float32)
        phase = (np.cos(angle) * cols + np.sin(angle) * rows) / period
        return np.sin(2 * np.pi * phase)[..., None]

    def ground(self) -> np.ndarray:
        ground = np.zeros((self.size, self.size, 3), np.float32)
        ground += self.rng.uniform(60, 195, 3)
        ground += 18 * self.smooth_noise(4, 3)
        ground += 8 * self.smooth_noise(self.size // 8, 1)
        ground += self.rng.uniform(0, 10) * self.stripes(5, 16)
        ground += self.rng.normal(0, 5, (self.size, self.size, 1))
        return ground

    def surface(self, kind: str, ground_colour: np.ndarray) -> np.ndarray:
        colour = ground_colour
        while np.linalg.norm(colour - ground_colour) < _MIN_CONTRAST:
            colour = self.rng.uniform(20, 235, 3)
        paint = colour + 10 * self.smooth_noise(4, 1)
        if kind == 'rectangle':
            paint += 36 * self.stripes(6, 9)
        elif kind == 'triangle':
            field = self.rng.integers(5, 8)  # pixels of the chequers
            rows, cols = np.mgrid[: self.size, : self.size] // field
            paint += 36 * ((rows + cols) % 2 * 2.0 - 1)[..., None]
        return paint + self.rng.normal(0, 4, (self.size, self.size, 1))

    def outline(self, kind: str) -> np.ndarray:
        """Return corners as x, y from (0, 0) on; a circle's of its box."""
        corners = np.array([[0.0, 0.0], [1.0, 1.0]])
        if kind != 'circle':
            if kind == 'rectangle':
                half = self.rng.uniform(0.6, 1.0)
                corners = [[-1, -half], [1, -half], [1, half], [-1, half]]
            else:
                spread = self.rng.uniform(-14, 14, 3)
                angles = np.deg2rad([0, 120, 240] + spread)
                corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            turn = self.rng.uniform(0, 2 * np.pi)
            cos, sin = np.cos(turn), np.sin(turn)
            corners = corners @ np.array([[cos, -sin], [sin, cos]]).T
            corners -= corners.min(0)
            corners /= corners.max()
        lowest = self.size // 8 / corners.max(0).min()
        return corners * self.rng.uniform(lowest, self.size // 2)

    def coverage(self, outline: np.ndarray) -> np.ndarray:
        """Return the covered share of every pixel, float32, (size, size)."""
        first = np.floor(outline.min(0)).astype(int)
        last = np.minimum(np.ceil(outline.max(0)).astype(int), self.size)
        cols, rows = [
            start + (np.arange((end - start) * _SUBPIXELS) + 0.5) / _SUBPIXELS
            for start, end in zip(first, last)
        ]
        cols, rows = cols[None], rows[:, None]
        if len(outline) == 2:
            x, y = outline.mean(0)
            radius = (outline[1] - outline[0])[0] / 2
            inside = (cols - x) ** 2 + (rows - y) ** 2 <= radius**2
        else:
            # The corners run in the direction that has the inside on the left.
            inside = np.True_
            for start, end in zip(outline, np.roll(outline, -1, axis=0)):
                x, y = end - start
                sides = x * (rows - start[1]) - y * (cols - start[0])
                inside = inside & (sides >= 0)
        width, height = last - first
        blocks = inside.reshape(height, _SUBPIXELS, width, _SUBPIXELS)
        coverage = np.zeros((self.size, self.size), dtype=np.float32)
        box = slice(first[1], last[1]), slice(first[0], last[0])
        coverage[box] = blocks.mean((1, 3))
        return coverage


def make_shapes(
    out_dir: str | os.PathLike,
    num_train: int = 800,
    num_val: int = 100,
    size: int = 160,
    seed: int = 0,
) -> bool:
    """Write a training and a validation set for detection and segmentation.

    The folder appears whole or not at all::

        out_dir/shapes.json                     the settings, for re-use
        out_dir/images/{train,val}/000000.png
        out_dir/annotations/instances_{train,val}.json   COCO, RLE masks
        out_dir/labels/{train,val}/000000.png   one class id per pixel

    Label maps hold 0 for the ground and 1, 2, ... for
    :data:`SHAPES_CLASSES`; so do the category ids in the COCO files.

    Args:
        out_dir (str | os.PathLike): The folder to write.
        num_train (int): Number of training scenes. Defaults to 800.
        num_val (int): Number of held-out scenes. Defaults to 100.
        size (int): Side of the images in pixels. Defaults to 160.
        seed (int): Seed of the training scenes; that of the held-out ones is
            a million higher. Defaults to 0.

    Returns:
        bool: False if the folder already held the very same data.

    Raises:
        FileExistsError: ``out_dir`` holds something else.
    """
    settings = dict(generator_version=_VERSION, num_train=num_train)
    settings.update(num_val=num_val, size=size, seed=seed)
    out_dir = Path(out_dir).absolute()
    recorded = out_dir / 'shapes.json'
    if recorded.is_file() and json.loads(recorded.read_text()) == settings:
        return False
    if out_dir.exists() and any(out_dir.iterdir()):
        raise FileExistsError(f'{out_dir} holds other data than {settings}.')
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent) as temp_dir:
        fresh = Path(temp_dir, 'new')
        _write_split(fresh, 'train', num_train, seed, size)
        _write_split(fresh, 'val', num_val, seed + 1_000_000, size)
        (fresh / recorded.name).write_text(json.dumps(settings, indent=2))
        fresh.replace(out_dir)
    return True


def _write_split(root: Path, split: str, count: int, seed: int, size: int):
    from pycocotools import mask as coco_mask  # comes with mmdet

    for kind in ('images', 'labels'):
        (root / kind / split).mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        image, masks, labels = make_scene(index, seed, size)
        name = f'{index:06d}.png'
        entry = dict(id=index + 1, file_name=name, width=size, height=size)
        images.append(entry)
        Image.fromarray(image).save(root / 'images' / split / name)
        label_map = (masks * (labels + 1)[:, None, None]).sum(0)
        label_map = Image.fromarray(label_map.astype(np.uint8))
        label_map.save(root / 'labels' / split / name)
        masks = masks.transpose(1, 2, 0).astype(np.uint8, order='F')
        for rle, label in zip(coco_mask.encode(masks), labels.tolist()):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=label + 1,
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                    area=int(coco_mask.area(rle)),
                    bbox=coco_mask.toBbox(rle).tolist(),
                    iscrowd=0,
                )
            )
    categories = [dict(id=n, name=x) for n, x in enumerate(SHAPES_CLASSES, 1)]
    content = dict(images=images, annotations=annotations)
    path = root / 'annotations' / f'instances_{split}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(content, categories=categories)))

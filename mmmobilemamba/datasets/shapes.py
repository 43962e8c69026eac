"""The embedded data set: scenes of geometric shapes, drawn from a seed."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SHAPES_CLASSES = ('circle', 'rectangle', 'triangle')
SHAPES_PALETTE = [(220, 60, 60), (60, 180, 75), (65, 105, 225)]
# In label maps the ground is class 0 and takes part in the mean IoU.
SHAPES_SEG_CLASSES = ('ground', *SHAPES_CLASSES)
SHAPES_SEG_PALETTE = [(128, 128, 128), *SHAPES_PALETTE]

MAX_OBJECTS = 5
MIN_VISIBLE = 0.4
# Part of the recorded settings: raise it whenever the same settings would
# give other pixels, so that old folders are not taken for new ones.
GENERATOR_VERSION = 1
SETTINGS_FILE = 'shapes.json'
_SUBPIXELS = 4
_PLACING_TRIES = 30
_MIN_CONTRAST = 90.0


@dataclass(frozen=True)
class ShapesScene:
    """One scene with its exact annotation.

    Args:
        image (np.ndarray): RGB pixels, uint8, (size, size, 3).
        masks (np.ndarray): Visible pixels of each object, bool,
            (objects, size, size). No two masks share a pixel.
        full_masks (np.ndarray): The same objects as if nothing lay on them.
        labels (np.ndarray): Index into :data:`SHAPES_CLASSES` of each
            object, int64, (objects, ). Later objects lie on earlier ones.
    """

    image: np.ndarray
    masks: np.ndarray
    full_masks: np.ndarray
    labels: np.ndarray

    def label_map(self) -> np.ndarray:
        """Return the class of every pixel, uint8 (size, size)."""
        return (self.masks * (self.labels + 1)[:, None, None]).sum(
            0, dtype=np.uint8
        )


def make_scene(index: int, seed: int = 0, size: int = 160) -> ShapesScene:
    """Draw one scene, the same one for the same arguments.

    It holds one to five objects of random class, colour, rotation and size,
    from an eighth to half of the image's. Circles are plain, rectangles
    striped and triangles chequered, so that a network learns them within
    minutes; colours say nothing. None of the annotated objects is hidden
    beyond ``1 - MIN_VISIBLE`` of its area.

    Args:
        index (int): Number of the scene within its seed.
        seed (int): Seed of the series. Defaults to 0.
        size (int): Side of the image in pixels, 64 or more. Defaults to 160.

    Returns:
        ShapesScene: Image, masks and labels.

    Raises:
        ValueError: The size is smaller.
    """
    if size < 64:
        raise ValueError(f'size must be at least 64, got {size}.')
    rng = np.random.default_rng([seed, index])
    image = _ground(rng, size)
    ground_colour = image.mean((0, 1))

    masks: list[np.ndarray] = []
    full_masks: list[np.ndarray] = []
    labels: list[int] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        label = int(rng.integers(len(SHAPES_CLASSES)))
        outline = _outline(rng, size, SHAPES_CLASSES[label])
        for _ in range(_PLACING_TRIES):
            offset = rng.uniform(0, size - outline.max(0))
            coverage = _coverage(outline + offset, size)
            full = coverage >= 0.5
            left = [mask & ~full for mask in masks]
            if all(
                mask.sum() >= MIN_VISIBLE * whole.sum()
                for mask, whole in zip(left, full_masks)
            ):
                break
        else:
            continue  # no place for it
        masks = [*left, full]
        full_masks.append(full)
        labels.append(label)
        paint = _paint(rng, size, ground_colour, SHAPES_CLASSES[label])
        image += coverage[..., None] * (paint - image)

    return ShapesScene(
        image=np.clip(np.rint(image), 0, 255).astype(np.uint8),
        masks=np.stack(masks),
        full_masks=np.stack(full_masks),
        labels=np.array(labels, dtype=np.int64),
    )


def _smooth_noise(
    rng: np.random.Generator, size: int, cells: int, channels: int
) -> np.ndarray:
    """Return noise in [-1, 1] without detail finer than size / cells."""
    grid = rng.uniform(-1, 1, (cells, cells, channels)).astype(np.float32)
    noise = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return noise.reshape(size, size, channels)


def _stripes(
    rng: np.random.Generator, size: int, shortest: float, longest: float
) -> np.ndarray:
    """Return stripes in [-1, 1] of random direction, periods in pixels."""
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(shortest, longest)
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    phase = (np.cos(angle) * cols + np.sin(angle) * rows) / period
    return np.sin(2 * np.pi * phase)[..., None]


def _checks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a chequered pattern of -1 and 1, fields of 5 to 7 pixels."""
    rows, cols = np.mgrid[:size, :size] // rng.integers(5, 8)
    return ((rows + cols) % 2 * 2.0 - 1)[..., None]


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return textured ground: base colour, clouds, stripes and grain."""
    ground = np.full((size, size, 3), rng.uniform(60, 195, 3), np.float32)
    ground += 18 * _smooth_noise(rng, size, 4, 3)
    ground += 8 * _smooth_noise(rng, size, size // 8, 1)
    ground += rng.uniform(0, 10) * _stripes(rng, size, 5, 16)
    ground += rng.normal(0, 5, (size, size, 1))
    return ground


def _paint(
    rng: np.random.Generator, size: int, ground_colour: np.ndarray, kind: str
) -> np.ndarray:
    """Return the surface of an object, which stands out from the ground."""
    colour = rng.uniform(20, 235, 3)
    while np.linalg.norm(colour - ground_colour) < _MIN_CONTRAST:
        colour = rng.uniform(20, 235, 3)
    paint = colour + 10 * _smooth_noise(rng, size, 4, 1)
    if kind == 'rectangle':
        paint += 36 * _stripes(rng, size, 6, 9)
    elif kind == 'triangle':
        paint += 36 * _checks(rng, size)
    return paint + rng.normal(0, 4, (size, size, 1))


def _outline(rng: np.random.Generator, size: int, kind: str) -> np.ndarray:
    """Return corners as x, y from (0, 0) on; a circle's are its box's."""
    if kind == 'circle':
        outline = np.array([[0.0, 0.0], [1.0, 1.0]])
    else:
        if kind == 'rectangle':
            half = rng.uniform(0.6, 1.0)
            corners = np.array(
                [[-1, -half], [1, -half], [1, half], [-1, half]]
            )
        else:
            angles = np.deg2rad([0, 120, 240] + rng.uniform(-14, 14, 3))
            corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        turn = rng.uniform(0, 2 * np.pi)
        rotation = np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
        outline = corners @ rotation.T
        outline -= outline.min(0)
        outline /= outline.max()
    lowest = size // 8 / outline.max(0).min()
    return outline * rng.uniform(lowest, size // 2)


def _coverage(outline: np.ndarray, size: int) -> np.ndarray:
    """Return the covered share of every pixel, float32, (size, size)."""
    first = np.floor(outline.min(0)).astype(int)
    last = np.minimum(np.ceil(outline.max(0)).astype(int), size)
    cols, rows = [
        start + (np.arange((end - start) * _SUBPIXELS) + 0.5) / _SUBPIXELS
        for start, end in zip(first, last)
    ]
    cols, rows = cols[None], rows[:, None]
    if len(outline) == 2:
        centre = outline.mean(0)
        radius = (outline[1] - outline[0])[0] / 2
        inside = (cols - centre[0]) ** 2 + (rows - centre[1]) ** 2 <= radius**2
    else:
        # The corners run in the direction that has the inside on the left.
        inside = np.True_
        for start, end in zip(outline, np.roll(outline, -1, axis=0)):
            edge = end - start
            sides = edge[0] * (rows - start[1]) - edge[1] * (cols - start[0])
            inside = inside & (sides >= 0)
    coverage = np.zeros((size, size), dtype=np.float32)
    height, width = last[::-1] - first[::-1]
    blocks = inside.reshape(height, _SUBPIXELS, width, _SUBPIXELS)
    coverage[first[1] : last[1], first[0] : last[0]] = blocks.mean((1, 3))
    return coverage


def make_shapes(
    out_dir: str | os.PathLike,
    num_train: int = 800,
    num_val: int = 100,
    size: int = 160,
    seed: int = 0,
    overwrite: bool = False,
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
        overwrite (bool): Whether to replace a folder that was made with
            other settings. Defaults to False.

    Returns:
        bool: True if the folder was written, False if it already held the
        very same data and was left alone.

    Raises:
        ValueError: If an argument is out of range.
        FileExistsError: If ``out_dir`` holds something else.
    """
    if min(num_train, num_val) < 1 or seed < 0:
        raise ValueError(
            'num_train and num_val must be at least 1 and seed at least 0, '
            f'got {num_train}, {num_val}, {seed}.'
        )
    settings = dict(
        generator_version=GENERATOR_VERSION,
        num_train=num_train,
        num_val=num_val,
        size=size,
        seed=seed,
    )
    out_dir = Path(out_dir).absolute()
    if out_dir.is_file() or (out_dir.is_dir() and any(out_dir.iterdir())):
        if _holds(out_dir, settings, overwrite):
            return False
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f'.{out_dir.name}-', dir=out_dir.parent
    ) as temp_dir:
        fresh = Path(temp_dir, 'new')
        _write_split(fresh, 'train', num_train, seed, size)
        _write_split(fresh, 'val', num_val, seed + 1_000_000, size)
        (fresh / SETTINGS_FILE).write_text(json.dumps(settings, indent=2))
        if out_dir.exists():
            # A plain rename over an empty folder is not portable.
            out_dir.rename(Path(temp_dir, 'old'))
        fresh.rename(out_dir)
    return True


def _holds(out_dir: Path, settings: dict, overwrite: bool) -> bool:
    """Tell whether the folder holds this data; raise if it holds another."""
    path = out_dir / SETTINGS_FILE
    if not path.is_file():
        raise FileExistsError(
            f'{out_dir} was not made by this generator (it has no '
            f'{SETTINGS_FILE}); choose another folder.'
        )
    found = json.loads(path.read_text())
    other = [
        f'{key} is {found.get(key)}, asked for {value}'
        for key, value in settings.items()
        if found.get(key) != value
    ]
    if other and not overwrite:
        raise FileExistsError(
            f'{out_dir} holds shapes made with other settings '
            f'({"; ".join(other)}); choose another folder or overwrite it.'
        )
    return not other


def _write_split(
    root: Path, split: str, count: int, seed: int, size: int
) -> None:
    # It comes with mmdet; reading the constants above must not need it.
    from pycocotools import mask as coco_mask

    for kind in ('images', 'labels'):
        (root / kind / split).mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        scene = make_scene(index, seed, size)
        name = f'{index:06d}.png'
        Image.fromarray(scene.image).save(root / 'images' / split / name)
        labels = Image.fromarray(scene.label_map())
        labels.save(root / 'labels' / split / name)
        image = dict(id=index + 1, file_name=name, width=size, height=size)
        images.append(image)
        masks = scene.masks.transpose(1, 2, 0).astype(np.uint8, order='F')
        for rle, label in zip(coco_mask.encode(masks), scene.labels):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=int(label) + 1,
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                    area=int(coco_mask.area(rle)),
                    bbox=coco_mask.toBbox(rle).tolist(),
                    iscrowd=0,
                )
            )
    content = dict(
        images=images,
        annotations=annotations,
        categories=[
            dict(id=n, name=x) for n, x in enumerate(SHAPES_CLASSES, 1)
        ],
    )
    path = root / 'annotations' / f'instances_{split}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))

"""Scenes of geometric shapes on textured ground, drawn from a seed."""

from dataclasses import dataclass

import cv2
import numpy as np

SHAPES_CLASSES = ('circle', 'rectangle', 'triangle')
SHAPES_PALETTE = [(220, 60, 60), (60, 180, 75), (65, 105, 225)]
# In label maps the ground is class 0 and takes part in the mean IoU.
SHAPES_SEG_CLASSES = ('ground', *SHAPES_CLASSES)
SHAPES_SEG_PALETTE = [(128, 128, 128), *SHAPES_PALETTE]

MAX_OBJECTS = 5
MIN_VISIBLE = 0.4
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
        """Return the class of every pixel.

        Returns:
            np.ndarray: uint8, (size, size), indices into
            :data:`SHAPES_SEG_CLASSES`; 0 is the ground.
        """
        label_map = np.zeros(self.image.shape[:2], dtype=np.uint8)
        for mask, label in zip(self.masks, self.labels):
            label_map[mask] = label + 1
        return label_map


def make_scene(
    index: int,
    seed: int = 0,
    size: int = 160,
    min_object: int = 20,
    max_object: int = 80,
) -> ShapesScene:
    """Draw one scene, the same one for the same arguments.

    A scene holds one to five objects of random class, size, colour and
    rotation. Circles are plain, rectangles striped and triangles chequered:
    colours say nothing about the class, but the surface does, so that a
    network learns the classes within minutes.

    An object never hides another one beyond ``1 - MIN_VISIBLE`` of its area:
    it is moved elsewhere, or left out where no place is found. So every drawn
    object is annotated, and none of the annotated ones is almost hidden.

    Args:
        index (int): Number of the scene within its seed.
        seed (int): Seed of the series. Defaults to 0.
        size (int): Side of the image in pixels. Defaults to 160.
        min_object (int): Smallest side in pixels of an object's bounding
            box, as if nothing lay on it. Defaults to 20.
        max_object (int): Largest side in pixels of that box. Defaults to 80.

    Returns:
        ShapesScene: Image, masks and labels.

    Raises:
        ValueError: If an argument is out of range.
    """
    check_int('index', index, 0)
    check_int('seed', seed, 0)
    check_sizes(size, min_object, max_object)
    rng = np.random.default_rng([seed, index])
    image = _ground(rng, size)
    ground_colour = image.mean((0, 1))

    masks: list[np.ndarray] = []
    full_masks: list[np.ndarray] = []
    labels: list[int] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        label = int(rng.integers(len(SHAPES_CLASSES)))
        outline = _outline(rng, SHAPES_CLASSES[label], min_object, max_object)
        coverage = _place(rng, outline, size, masks, full_masks)
        if coverage is None:
            continue
        full = coverage >= 0.5
        masks = [mask & ~full for mask in masks]
        masks.append(full)
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


def check_int(name: str, value: int, lowest: int) -> None:
    """Raise unless an argument is an int from ``lowest`` up."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f'{name} must be an int, but got {value!r}')
    if value < lowest:
        raise ValueError(f'{name} must be at least {lowest}, but got {value}')


def check_sizes(size: int, min_object: int, max_object: int) -> None:
    """Raise unless objects of these sizes fit an image of this one."""
    check_int('min_object', min_object, 8)
    check_int('max_object', max_object, 16)
    check_int('size', size, 32)
    if max_object < 2 * min_object:
        raise ValueError(
            'max_object must be at least twice min_object, but got '
            f'max_object={max_object} and min_object={min_object}'
        )
    if size < max_object + 2:
        raise ValueError(
            'size must be at least max_object + 2, so that every object '
            f'fits, but got size={size} and max_object={max_object}'
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
    field = rng.integers(5, 8)
    rows, cols = np.mgrid[:size, :size] // field
    return ((rows + cols) % 2 * 2.0 - 1)[..., None]


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return textured ground: base colour, clouds, stripes and grain."""
    ground = np.broadcast_to(rng.uniform(60, 195, 3), (size, size, 3)).astype(
        np.float32
    )
    ground = ground + 18 * _smooth_noise(rng, size, 4, 3)
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


def _outline(
    rng: np.random.Generator, kind: str, min_object: int, max_object: int
) -> np.ndarray:
    """Return the corners (corners, 2) of an object as x, y from (0, 0) on.

    A circle is given by its two opposite box corners.
    """
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
    lowest = min_object / outline.max(0).min()
    assert lowest <= max_object, 'an outline is flatter than 1 to 2'
    return outline * rng.uniform(lowest, max_object)


def _coverage(outline: np.ndarray, size: int) -> np.ndarray:
    """Return the covered share of every pixel, float32, (size, size)."""
    first = np.floor(outline.min(0)).astype(int)
    last = np.minimum(np.ceil(outline.max(0)).astype(int), size)
    cols, rows = [
        start + (np.arange((end - start) * _SUBPIXELS) + 0.5) / _SUBPIXELS
        for start, end in zip(first, last)
    ]
    if len(outline) == 2:
        centre = outline.mean(0)
        radius = (outline[1] - outline[0])[0] / 2
        inside = (cols[None] - centre[0]) ** 2 + (
            rows[:, None] - centre[1]
        ) ** 2 <= radius**2
    else:
        # the corners run in the direction that puts the inside on the left
        inside = np.ones((len(rows), len(cols)), dtype=bool)
        for start, end in zip(outline, np.roll(outline, -1, axis=0)):
            edge = end - start
            inside &= (
                edge[0] * (rows[:, None] - start[1])
                - edge[1] * (cols[None] - start[0])
                >= 0
            )
    coverage = np.zeros((size, size), dtype=np.float32)
    height, width = last[::-1] - first[::-1]
    blocks = inside.reshape(height, _SUBPIXELS, width, _SUBPIXELS)
    coverage[first[1] : last[1], first[0] : last[0]] = blocks.mean((1, 3))
    return coverage


def _place(
    rng: np.random.Generator,
    outline: np.ndarray,
    size: int,
    masks: list[np.ndarray],
    full_masks: list[np.ndarray],
) -> np.ndarray | None:
    """Return the coverage at a place that hides no other object too much."""
    for _ in range(_PLACING_TRIES):
        offset = rng.uniform(0, size - outline.max(0))
        coverage = _coverage(outline + offset, size)
        full = coverage >= 0.5
        if all(
            (mask & ~full).sum() >= MIN_VISIBLE * whole.sum()
            for mask, whole in zip(masks, full_masks)
        ):
            return coverage
    return None

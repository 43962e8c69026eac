"""Pictures on which an exported network is compared."""

import os

import numpy as np
import torch
from torch import Tensor, nn

from ..apis.inference import find_images, read_image
from .networks import Preprocess
from .options import MIN_SIDE, ExportOptions

MAX_IMAGES = 8  # that a parity check looks at


def read_images(
    folder: str | os.PathLike | None,
) -> list[tuple[str, np.ndarray]]:
    """Read the pictures to compare on.

    Args:
        folder (str or PathLike, optional): Picture, or folder of them.

    Returns:
        list[tuple[str, np.ndarray]]: Names and BGR pixels of the first of
        them.

    Raises:
        FileNotFoundError: There are none.
        ValueError: A picture cannot be read.
    """
    if folder is None:
        return []
    paths = find_images(folder)[:MAX_IMAGES]
    return [(path.name, read_image(path)) for path in paths]


def random_image(
    options: ExportOptions, size: tuple[int, int], seed: int
) -> Tensor:
    """Make pictures of smooth noise, as a network takes them.

    Args:
        options (ExportOptions): Tells the batch and the type.
        size (tuple[int]): Height and width in pixels.
        seed (int): Seed of the noise.

    Returns:
        Tensor: (batch, 3, height, width), uint8 where the preprocessing is
        inside, else with mean 0 and deviation near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = (options.batch, 3, -(-size[0] // 8), -(-size[1] // 8))
    noise = nn.functional.interpolate(
        torch.randn(coarse, generator=generator), size=size, mode='bilinear'
    )
    fine = torch.randn((options.batch, 3, *size), generator=generator)
    noise = noise + 0.3 * fine
    if options.preprocess:
        return (noise * 60 + 120).clamp(0, 255).to(torch.uint8)
    return noise


def check_sizes(options: ExportOptions) -> list[tuple[int, int]]:
    """Return the sizes on which an export is compared.

    Args:
        options (ExportOptions): With the traced size.

    Returns:
        list[tuple[int, int]]: Three sizes, two of them odd, where the size
        is free, else the one that is allowed.
    """
    height, width = options.size
    if not options.dynamic_size:
        return [(height, width)]
    smaller = (
        max(height * 2 // 3, MIN_SIDE) | 1,
        max(width // 2, MIN_SIDE) | 1,
    )
    larger = (height + 13 | 1, width + height // 4 + 6)
    return [(height, width), smaller, larger]


def picture_as_input(
    pixels: np.ndarray, size: tuple[int, int], metadata: dict, batch: int
) -> Tensor:
    """Turn BGR pixels into a batch of the size and type that is taken.

    Args:
        pixels (np.ndarray): BGR pixels, uint8, (height, width, 3).
        size (tuple[int]): Height and width to resize to, in pixels.
        metadata (dict): The exported network's.
        batch (int): How often the picture stands in the batch.

    Returns:
        Tensor: (batch, 3, *size), uint8 where the preprocessing is inside,
        else normalised float32.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    image = nn.functional.interpolate(
        image, size=size, mode='bilinear', antialias=True
    )
    image = image.round().clamp(0, 255).to(torch.uint8)
    image = image.expand(batch, -1, -1, -1)
    if not metadata['preprocess']:
        image = Preprocess(metadata['normalize'])(image)
    return image.contiguous()

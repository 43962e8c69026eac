"""Images on which an exported network is compared or calibrated."""

import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..apis.inference import find_images
from .networks import Preprocess
from .options import MIN_SIDE, ExportOptions


def read_images(
    folder: str | os.PathLike, count: int, channels: int
) -> list[tuple[str, np.ndarray]]:
    """Read images of a folder, or of the folders within, evenly.

    Args:
        folder (str or PathLike): Image, folder of images, or folder with a
            folder per class.
        count (int): Most images.
        channels (int): Channels that a network takes.

    Returns:
        list[tuple[str, np.ndarray]]: Names and pixels (height, width,
        channels), colours as BGR.

    Raises:
        FileNotFoundError: There are none.
        ValueError: Files are no images, and all such are named, or have
            another number of channels.
    """
    try:
        paths = find_images(folder)
    except FileNotFoundError:
        paths = []
        for inner in sorted(Path(folder).glob('*/')):
            with suppress(FileNotFoundError):
                paths += find_images(inner)
        if not paths:
            raise
    step = max(len(paths) / count, 1)
    paths = [paths[int(i * step)] for i in range(min(count, len(paths)))]
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED
    images = [(path.name, cv2.imread(os.fspath(path), flag)) for path in paths]
    bad = [
        str(path)
        for path, (_, pixels) in zip(paths, images, strict=True)
        if pixels is None
    ]
    if bad:
        raise ValueError(f'No images that can be read: {", ".join(bad)}.')
    for i, (name, pixels) in enumerate(images):
        images[i] = name, np.atleast_3d(pixels)
        if images[i][1].shape[2] != channels:
            raise ValueError(
                f'{paths[i]} has {images[i][1].shape[2]} channels, and the '
                f'network takes images of {channels}.'
            )
    return images


def random_image(
    options: ExportOptions, size: tuple[int, int], channels: int, seed: int
) -> Tensor:
    """Make images of smooth noise, as a network takes them.

    Args:
        options (ExportOptions): Tells the batch and the type.
        size (tuple[int]): Height and width in pixels.
        channels (int): Channels of an image.
        seed (int): Seed of the noise.

    Returns:
        Tensor: (batch, channels, height, width), uint8 where the
        preprocessing is inside, else with mean 0 and deviation near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    sides = (-(-size[0] // 8), -(-size[1] // 8))
    coarse = torch.randn(
        (options.batch, channels, *sides), generator=generator
    )
    noise = nn.functional.interpolate(coarse, size=size, mode='bilinear')
    noise = noise + 0.3 * torch.randn(noise.shape, generator=generator)
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


def as_input(pixels: np.ndarray, size: tuple[int, int], about: dict) -> Tensor:
    """Turn pixels into a batch of the size and type that is taken.

    Args:
        pixels (np.ndarray): Pixels (height, width, channels).
        size (tuple[int]): Height and width to resize to, in pixels.
        about (dict): Metadata of the exported network, with a batch, in
            which the image stands as often as needed.

    Returns:
        Tensor: (batch, channels, *size), uint8 where the preprocessing is
        inside, else normalised float32.
    """
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    image = nn.functional.interpolate(
        image, size=size, mode='bilinear', antialias=True
    )
    image = image.expand(about['batch'] or 1, -1, -1, -1)
    if about['preprocess']:
        return image.round().clamp(0, 255).to(torch.uint8).contiguous()
    return Preprocess(**about['normalize'])(image).contiguous()

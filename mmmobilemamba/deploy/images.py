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


def read_images(
    folder: str | os.PathLike, count: int, channels: int
) -> list[tuple[str, np.ndarray]]:
    """Read images of a folder, or of the folders within, evenly.

    Returns at most ``count`` names and pixels (height, width, channels),
    colours as BGR. Raises ValueError for files that are no images, and names
    all such, or have another number of channels than a network takes.
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
    images, bad = [], []
    for path in paths:
        pixels = cv2.imread(os.fspath(path), flag)
        if pixels is None:
            bad.append(str(path))
            continue
        pixels = np.atleast_3d(pixels)
        if pixels.shape[2] != channels:
            raise ValueError(
                f'{path} has {pixels.shape[2]} channels, and the network '
                f'takes images of {channels}.'
            )
        images.append((path.name, pixels))
    if bad:
        raise ValueError(f'No images that can be read: {", ".join(bad)}.')
    return images


def random_image(about: dict, size: tuple[int, int], seed: int) -> Tensor:
    """Make smooth noise (batch, channels, *size), as a network takes it.

    ``about`` is the metadata of the network; two images make a free batch.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (about['batch'] or 2, about['channels'])
    sides = (-(-size[0] // 8), -(-size[1] // 8))
    noise = torch.randn((*shape, *sides), generator=generator)
    noise = nn.functional.interpolate(noise, size=size, mode='bilinear')
    noise = noise + 0.3 * torch.randn(noise.shape, generator=generator)
    if about['preprocess']:
        return (noise * 60 + 120).clamp(0, 255).to(torch.uint8)
    return noise


def as_input(pixels: np.ndarray, size: tuple[int, int], about: dict) -> Tensor:
    """Turn pixels (H, W, channels) into a batch as a network takes it.

    ``size`` is height and width to resize to, ``about`` the metadata of the
    network.
    """
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    image = nn.functional.interpolate(
        image, size=size, mode='bilinear', antialias=True
    )
    if about['preprocess']:
        return image.round().clamp(0, 255).to(torch.uint8).contiguous()
    return Preprocess(**about['normalize'])(image).contiguous()

"""Images on which an exported network is compared or calibrated."""

import os
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..apis.inference import IMAGE_SUFFIXES, find_images
from .networks import Preprocess


def read_images(
    path: str | os.PathLike, count: int, about: dict
) -> list[tuple[str, Tensor]]:
    """Read an image, or images of a folder and those within, evenly.

    Returns at most ``count`` names and batches of one (1, channels, H, W), as
    the network takes them whose metadata is ``about``. Raises ValueError for
    a file that is no image of its channels.
    """
    paths = sorted(
        file
        for file in Path(path).rglob('*')
        if file.suffix.lower() in IMAGE_SUFFIXES
    )
    paths = paths or find_images(path)  # a file, or an error
    step, channels = max(len(paths) / count, 1), about['channels']
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED
    images = []
    for i in range(min(count, len(paths))):
        file = paths[int(i * step)]
        pixels = cv2.imread(os.fspath(file), flag)
        if pixels is None or np.atleast_3d(pixels).shape[2] != channels:
            raise ValueError(f'{file} is no image of {channels} channels.')
        height, width = about['traced_size']
        pixels = np.atleast_3d(cv2.resize(pixels, (width, height)))
        image = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
        if not about['preprocess']:
            image = Preprocess(**about['normalize'])(image)
        images.append((file.name, image))
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

"""Which pictures a config's network sees."""

from collections import Counter

import numpy as np
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    TRANSFORMS,
    init_default_scope,
)

from ..apis.options import innermost_dataset

# Where a config keeps the ratio of its pictures: the sizes papers count at.
_USUAL = {'mmdet': (800, 1280), 'mmseg': (512, 512), 'mmpretrain': (224, 224)}
_RESIZING = ('Crop', 'Pad', 'Resize', 'ShortestEdge')


def usual_shape(cfg: Config) -> tuple[int, int]:
    """Return the size that a config's test pipeline gives every picture.

    Args:
        cfg (Config): Config of any of the libraries.

    Returns:
        tuple[int, int]: Height and width in pixels; where the pipeline keeps
        the ratio of the pictures, the size that papers count at: 800x1280
        for detectors, 512x512 for segmentors, 224x224 for classifiers.
    """
    loader = cfg.get('test_dataloader') or {}
    steps = innermost_dataset(loader.dataset).pipeline if loader else []
    for step in reversed(steps):
        if 'crop_size' in step:
            side = step['crop_size']
            return (side, side) if isinstance(side, int) else tuple(side)
        if 'Resize' in step['type'] and 'scale' in step:
            scale = step['scale']
            if isinstance(scale, int) and step['type'].endswith('Resize'):
                return (scale, scale)
            if not isinstance(scale, int) and not step.get('keep_ratio'):
                return (scale[1], scale[0])
            break
    return _USUAL.get(cfg.get('default_scope'), (224, 224))


def validation_shapes(cfg: Config, count: int) -> Counter:
    """Return the padded sizes of the first validation pictures.

    Only the list of the data set is read, no picture: it must hold heights
    and widths, as COCO's does.

    Args:
        cfg (Config): Config with a ``val_dataloader``.
        count (int): Pictures to take, from the start.

    Returns:
        Counter: How many pictures have each (height, width), in pixels, as
        the network gets them one by one.

    Raises:
        ValueError: The data set does not tell sizes.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    settings = innermost_dataset(cfg.val_dataloader.dataset)
    dataset = DATASETS.build(settings)
    resize = [
        TRANSFORMS.build(step)
        for step in settings.pipeline
        if any(word in step['type'] for word in _RESIZING)
    ]
    divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
    shapes: Counter = Counter()
    for index in range(min(count, len(dataset))):
        info = dataset.get_data_info(index)
        if 'height' not in info or 'width' not in info:
            raise ValueError(
                f'{settings.type} lists no heights and widths; pass a shape.'
            )
        size = (info['height'], info['width'])
        blank = np.zeros((*size, 3), np.uint8)
        sample = dict(img=blank, img_shape=size, ori_shape=size)
        for step in resize:
            sample = step(sample)
        shapes[padded(sample['img'].shape[:2], divisor)] += 1
    return shapes


def first_shape(cfg: Config) -> tuple[int, int]:
    """Return the padded size of the first validation picture.

    Args:
        cfg (Config): Config with a ``val_dataloader``.

    Returns:
        tuple[int, int]: Height and width in pixels, as the network gets the
        picture by itself.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    picture = DATASETS.build(cfg.val_dataloader.dataset)[0]['inputs']
    divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
    return padded(tuple(picture.shape[-2:]), divisor)


def padded(shape: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Round a size up as a data preprocessor pads it.

    Args:
        shape (tuple[int, int]): Height and width in pixels.
        divisor (int): What both become multiples of.

    Returns:
        tuple[int, int]: Height and width in pixels.
    """
    height, width = (-(-side // divisor) * divisor for side in shape)
    return height, width

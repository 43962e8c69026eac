"""Channels and sizes of the images that a config's model gets."""

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from ..datasets.data_paths import first_dataset, type_name

# What papers count at where a pipeline keeps the ratio of the images.
_USUAL = dict(mmdet=(800, 1280), mmseg=(512, 512), mmpretrain=(224, 224))


def input_channels(model: nn.Module) -> int:
    """Return the channels of a model's images, by its first convolution."""
    convs = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    # YOLOX's Focus puts four pixels into one.
    focus = any(type(m).__name__ == 'Focus' for m in model.modules())
    return next((m.in_channels for m in convs), 3) // (4 if focus else 1)


def usual_size(cfg: Config) -> tuple[int, int]:
    """Return height and width that a config's test pipeline gives images;
    where it keeps their ratio, those that papers count at."""
    loader = cfg.get('test_dataloader') or {}
    steps = first_dataset(loader.dataset).pipeline if loader else []
    for step in reversed(steps):
        kind, size = type_name(step), step.get('crop_size')
        free = step.get('keep_ratio') or 'Edge' in kind
        if size is None and 'Resize' in kind and not free:
            size = step.get('scale')
            size = size[::-1] if isinstance(size, tuple | list) else size
        if size is not None:
            return (size, size) if isinstance(size, int) else tuple(size)
        if 'Resize' in kind:
            break
    return _USUAL.get(cfg.get('default_scope'), (224, 224))


def padded(size: tuple[int, int], cfg: Config) -> tuple[int, int]:
    """Round a size up as the data preprocessor of a config pads it."""
    settings = cfg.model.get('data_preprocessor') or {}
    divisor = settings.get('pad_size_divisor', 1)
    return tuple(-(-side // divisor) * divisor for side in size)


def first_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of a config's first validation image, as the
    network gets it."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        image = DATASETS.build(cfg.val_dataloader.dataset)[0]['inputs']
    return padded(tuple(image.shape[-2:]), cfg)

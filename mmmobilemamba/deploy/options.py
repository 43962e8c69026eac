"""How a model is exported, and what its config says of that."""

import os
from dataclasses import dataclass

from mmengine.config import Config

from ..datasets.data_paths import first_dataset

MIN_SIDE = 32  # pixels, of the backbone
TOLERANCE = 1e-4
KINDS = dict(mmdet='detector', mmseg='segmentor', mmpretrain='classifier')


@dataclass
class ExportOptions:
    """How a model is exported.

    Args:
        size (tuple[int]): Height and width in pixels, of every image where
            the size is fixed, of the traced one where it is free.
        dynamic_size (bool): Leave the size free. Defaults to False.
        dynamic_batch (bool): Leave the batch free, which is 1 otherwise.
            Defaults to False.
        preprocess (bool): Take uint8 pixels as OpenCV reads them; mean, std
            and channel order are inside. Defaults to False.
        backbone (bool): Export the maps of the backbone alone. Defaults to
            False.
        tolerance (float): Largest relative error. Defaults to 1e-4.
    """

    size: tuple[int, int]
    dynamic_size: bool = False
    dynamic_batch: bool = False
    preprocess: bool = False
    backbone: bool = False
    tolerance: float = TOLERANCE

    def check(self, out: str | os.PathLike, suffix: str) -> None:
        """Raise ValueError where an option is out of range."""
        if not str(out).endswith(suffix):
            raise ValueError(f'out must end in {suffix}, got {out}.')
        if min(self.size) < MIN_SIDE:
            raise ValueError(
                f'size must be {MIN_SIDE}x{MIN_SIDE} pixels or more, got '
                f'{self.size[0]}x{self.size[1]}.'
            )


def kind_of(cfg: Config) -> str:
    """Tell what a config describes, one of the values of ``KINDS``."""
    scope = cfg.get('default_scope')
    if scope not in KINDS:
        raise ValueError(
            f'default_scope must be one of {", ".join(KINDS)}, got {scope!r}.'
        )
    return KINDS[scope]


def image_size(cfg: Config) -> tuple[int, int]:
    """Read height and width of a test image, or of a window, in pixels."""
    test_cfg = cfg.model.get('test_cfg') or {}
    if test_cfg.get('mode') == 'slide':
        return tuple(test_cfg['crop_size'])
    size = None
    for step in first_dataset(cfg.test_dataloader.dataset).pipeline:
        for key in ('scale', 'crop_size'):
            value = step.get(key)
            if isinstance(value, int):
                size = (value, value)
            elif isinstance(value, (tuple, list)) and len(value) == 2:
                # widths come first, and crops are square
                size = (value[1], value[0])
    if size is None or min(size) < 1:
        raise ValueError(
            "The config's test pipeline does not say the size of an image; "
            'pass --size HEIGHT WIDTH.'
        )
    return size

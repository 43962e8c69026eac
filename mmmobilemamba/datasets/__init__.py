"""The embedded data set of geometric shapes."""

from .shapes import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_SEG_CLASSES,
    SHAPES_SEG_PALETTE,
    ShapesScene,
    make_scene,
)
from .shapes_folder import make_shapes

__all__ = [
    'SHAPES_CLASSES',
    'SHAPES_PALETTE',
    'SHAPES_SEG_CLASSES',
    'SHAPES_SEG_PALETTE',
    'ShapesScene',
    'make_scene',
    'make_shapes',
]

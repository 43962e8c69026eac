"""The embedded data set of geometric shapes, and checks of any data."""

from .checked_pipeline import CheckedPipeline
from .shapes import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_SEG_CLASSES,
    SHAPES_SEG_PALETTE,
    make_scene,
    make_shapes,
)

__all__ = [
    'CheckedPipeline',
    'SHAPES_CLASSES',
    'SHAPES_PALETTE',
    'SHAPES_SEG_CLASSES',
    'SHAPES_SEG_PALETTE',
    'make_scene',
    'make_shapes',
]

"""The embedded data set of geometric shapes, and checks of any data."""

from .checked_pipeline import CheckedPipeline, DataFaultError
from .shapes import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_SEG_CLASSES,
    SHAPES_SEG_PALETTE,
    ShapesScene,
    make_scene,
    make_shapes,
)

__all__ = [
    'CheckedPipeline',
    'DataFaultError',
    'SHAPES_CLASSES',
    'SHAPES_PALETTE',
    'SHAPES_SEG_CLASSES',
    'SHAPES_SEG_PALETTE',
    'ShapesScene',
    'make_scene',
    'make_shapes',
]

"""Backbones, one file each."""

from .mobilemamba import MobileMamba
from .pyramid_backbone import PyramidBackbone
from .timm_backbone import TIMMBackbone

__all__ = ['MobileMamba', 'PyramidBackbone', 'TIMMBackbone']

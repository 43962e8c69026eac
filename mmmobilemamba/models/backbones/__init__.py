"""Backbones, one file each."""

from .mobilemamba import MobileMamba
from .pyramid import PyramidBackbone
from .timm import TIMMBackbone

__all__ = ['MobileMamba', 'PyramidBackbone', 'TIMMBackbone']

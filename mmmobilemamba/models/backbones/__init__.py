"""Backbones, one file each."""

from .mobilemamba import MobileMamba

__all__ = ['MobileMamba']

"""Parts that the backbones are made of; no variant tables here."""

from .block import Downsample, MobileMambaBlock, Stem
from .conv import ConvBN, ResidualDWConv, ResidualFFN
from .deployed import deploy_layers
from .mixer import GlobalPath, LocalPath, Mixer, split_channels
from .ss2d import SS2D

__all__ = [
    'ConvBN',
    'Downsample',
    'GlobalPath',
    'LocalPath',
    'Mixer',
    'MobileMambaBlock',
    'ResidualDWConv',
    'ResidualFFN',
    'SS2D',
    'Stem',
    'deploy_layers',
    'split_channels',
]

"""Parts that the backbones are made of; no variant tables here."""

from .block import Downsample, MobileMambaBlock
from .conv_bn import ConvBN, ResidualDWConv, ResidualFFN
from .fused_conv import FusedConv2d
from .mixer import Mixer, split_channels
from .ss2d import SCAN_DIRECTIONS, SS2D
from .wavelet import haar_dwt2d, haar_iwt2d

__all__ = [
    'ConvBN',
    'Downsample',
    'FusedConv2d',
    'Mixer',
    'MobileMambaBlock',
    'ResidualDWConv',
    'ResidualFFN',
    'SCAN_DIRECTIONS',
    'SS2D',
    'haar_dwt2d',
    'haar_iwt2d',
    'split_channels',
]

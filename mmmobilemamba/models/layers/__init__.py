"""Parts that the backbones are made of; no variant tables here."""

# ruff: noqa: F401
from .block import Downsample, MobileMambaBlock, Stem
from .conv import ConvBN
from .deployed import deploy_layers
from .ss2d import SS2D

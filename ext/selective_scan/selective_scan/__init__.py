"""Selective (S6) scans for PyTorch, fast on CPU and CUDA."""

from . import inference
from ._library import built_with_cuda, cpu_variant, set_cpu_variant
from .functional import (
    bidirectional_scan,
    gated_layer_norm,
    selective_scan,
    wavelet_conv2d,
)
from .reference import (
    bidirectional_scan_reference,
    gated_layer_norm_reference,
    selective_scan_reference,
    wavelet_conv2d_reference,
)

__version__ = '0.6.0'

__all__ = [
    'bidirectional_scan',
    'bidirectional_scan_reference',
    'built_with_cuda',
    'cpu_variant',
    'gated_layer_norm',
    'gated_layer_norm_reference',
    'inference',
    'selective_scan',
    'selective_scan_reference',
    'set_cpu_variant',
    'wavelet_conv2d',
    'wavelet_conv2d_reference',
]

"""Selective (S6) scans for PyTorch, fast on CPU and CUDA."""

from ._library import built_with_cuda, cpu_variant, set_cpu_variant
from .functional import (
    bidirectional_scan,
    gated_layer_norm,
    selective_scan,
    wavelet_conv2d,
)
from .inference import (
    dense_conv2d,
    depthwise_conv2d,
    feed_forward,
    halving_conv2d,
    pack_channels,
    pack_depthwise,
    pack_halving,
    pack_matrix,
    pack_strassen,
    pack_wavelet,
)
from .reference import (
    bidirectional_scan_reference,
    gated_layer_norm_reference,
    selective_scan_reference,
    wavelet_conv2d_reference,
)

__version__ = '0.5.0'

__all__ = [
    'bidirectional_scan',
    'bidirectional_scan_reference',
    'built_with_cuda',
    'cpu_variant',
    'dense_conv2d',
    'depthwise_conv2d',
    'feed_forward',
    'gated_layer_norm',
    'gated_layer_norm_reference',
    'halving_conv2d',
    'pack_channels',
    'pack_depthwise',
    'pack_halving',
    'pack_matrix',
    'pack_strassen',
    'pack_wavelet',
    'selective_scan',
    'selective_scan_reference',
    'set_cpu_variant',
    'wavelet_conv2d',
    'wavelet_conv2d_reference',
]

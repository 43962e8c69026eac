"""Operators of the network; the compiled extension is optional."""

from .export import export_form, is_exporting, size_is_free
from .gated_norm import gated_layer_norm
from .scan import (
    BACKENDS,
    ENV_NAME,
    INSTALL_COMMAND,
    bidirectional_scan,
    find_extension,
    scan_backend,
)
from .scan_pytorch import MAX_TOKENS
from .wavelet import haar_dwt2d, haar_iwt2d, wavelet_conv2d

__all__ = [
    'BACKENDS',
    'ENV_NAME',
    'INSTALL_COMMAND',
    'MAX_TOKENS',
    'bidirectional_scan',
    'export_form',
    'find_extension',
    'gated_layer_norm',
    'haar_dwt2d',
    'haar_iwt2d',
    'is_exporting',
    'scan_backend',
    'size_is_free',
    'wavelet_conv2d',
]

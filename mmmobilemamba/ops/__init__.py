"""Operators of the network; the compiled extension is optional."""

from .backend import (
    BACKENDS,
    ENV_NAME,
    INSTALL_COMMAND,
    bidirectional_scan,
    find_extension,
    gated_layer_norm,
    scan_backend,
)
from .export import export_form, is_exporting
from .scan import MAX_TOKENS
from .wavelet import wavelet_conv2d

__all__ = [
    'BACKENDS',
    'ENV_NAME',
    'INSTALL_COMMAND',
    'MAX_TOKENS',
    'bidirectional_scan',
    'export_form',
    'find_extension',
    'gated_layer_norm',
    'is_exporting',
    'scan_backend',
    'wavelet_conv2d',
]

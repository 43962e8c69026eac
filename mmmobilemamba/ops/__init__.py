"""Operators of the network; the compiled extension is optional."""

# ruff: noqa: F401
from .scan import (
    BACKENDS,
    ENV_NAME,
    INSTALL_COMMAND,
    find_extension,
    is_exporting,
    scan_backend,
)
from .scan_pytorch import bidirectional_scan, gated_layer_norm
from .wavelet import wavelet_conv2d

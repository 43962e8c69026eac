"""Scan operators; the extension is optional and plugs in here."""

from .backend import (
    BACKENDS,
    ENV_NAME,
    INSTALL_COMMAND,
    bidirectional_scan,
    find_extension,
    inference_kernels,
    product_kernels,
    scan_backend,
    selective_scan,
)
from .export import export_form, is_exporting, size_is_free
from .inference import PackCache, PacksWeights, hold_weights_constant
from .parallel import MAX_TOKENS
from .reference import state_dtype

__all__ = [
    'BACKENDS',
    'ENV_NAME',
    'INSTALL_COMMAND',
    'MAX_TOKENS',
    'PackCache',
    'PacksWeights',
    'bidirectional_scan',
    'export_form',
    'find_extension',
    'hold_weights_constant',
    'inference_kernels',
    'is_exporting',
    'product_kernels',
    'scan_backend',
    'selective_scan',
    'size_is_free',
    'state_dtype',
]

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
from .inference import PackCache, PacksWeights, infers_on_cpu
from .reference import state_dtype

__all__ = [
    'BACKENDS',
    'ENV_NAME',
    'INSTALL_COMMAND',
    'PackCache',
    'PacksWeights',
    'bidirectional_scan',
    'find_extension',
    'inference_kernels',
    'infers_on_cpu',
    'product_kernels',
    'scan_backend',
    'selective_scan',
    'state_dtype',
]

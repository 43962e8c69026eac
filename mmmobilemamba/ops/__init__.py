"""Scan operators; the extension is optional and plugs in here."""

from .backend import (
    BACKENDS,
    ENV_NAME,
    INSTALL_COMMAND,
    bidirectional_scan,
    find_extension,
    scan_backend,
    selective_scan,
)
from .reference import state_dtype

__all__ = [
    'BACKENDS',
    'ENV_NAME',
    'INSTALL_COMMAND',
    'bidirectional_scan',
    'find_extension',
    'scan_backend',
    'selective_scan',
    'state_dtype',
]

"""Taking a trained network to a device.

Nothing is imported here, so that the tools can ask for the kind of a file
where onnx and onnxruntime are not installed.
"""

import os

RUNTIMES = ('onnxruntime', 'openvino')
# Key of what a file says of itself, as JSON, among its metadata.
METADATA = 'mmmobilemamba'


def is_onnx(path: str | os.PathLike) -> bool:
    """Tell by its name whether a file is an exported network."""
    return os.fspath(path).lower().endswith('.onnx')

"""A static page that runs an exported network in a browser."""

import json
import os
import re
import subprocess
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from ..checkpoints.atomic import atomic_write
from .session import read_exported

INSTALL = 'npm install --ignore-scripts onnxruntime-web@1.30.0'
_THREADED = 'dist/ort-wasm-simd-threaded'
_RUNTIME = ('dist/ort.wasm.min.mjs', f'{_THREADED}.mjs', f'{_THREADED}.wasm')


def make_web_page(
    network: str | os.PathLike,
    folder: str | os.PathLike,
    runtime: str | os.PathLike,
) -> None:
    """Write a folder that any web server turns into a page.

    ``network`` is exported with ``--preprocess``, ``runtime`` the folder of
    the npm package onnxruntime-web, or ``'npm'``, which fetches it. Raises
    ValueError where the page cannot feed one, or the other is missing.
    """
    about = read_exported(network)[1]
    photos = about['preprocess'] and about['channels'] == 3
    if about['kind'] == 'backbone' or not photos:
        raise ValueError(
            f'{network}: the page feeds photos to networks exported with '
            '--preprocess, and without --backbone.'
        )
    contents = _read_runtime(runtime)
    for file in Path(__file__).with_name('web').iterdir():
        contents[file.name] = file.read_bytes()
    contents['network.onnx'] = Path(network).read_bytes()
    colours = np.random.default_rng(0).integers(64, 256, (64, 3)).tolist()
    about['palette'] = about['palette'] or colours
    about['bytes'] = len(contents['network.onnx'])
    contents['network.json'] = json.dumps(about).encode()
    for name, content in contents.items():
        with atomic_write(Path(folder, name)) as draft:
            draft.write_bytes(content)


def _read_runtime(folder: str | os.PathLike) -> dict[str, bytes]:
    """Read onnxruntime-web, which npm installs where that is asked for."""
    try:
        with tempfile.TemporaryDirectory() as prefix:
            if folder == 'npm':
                command = [*INSTALL.split(), '--prefix', prefix]
                subprocess.run(command, check=True)
                folder = Path(prefix, 'node_modules', 'onnxruntime-web')
            return {
                f'runtime/{name}': Path(folder, name).read_bytes()
                for name in _RUNTIME
            }
    except (OSError, subprocess.CalledProcessError) as error:
        text = f'{error}. `{INSTALL}`, --runtime node_modules/onnxruntime-web'
        raise ValueError(text) from error


def make_server(
    folder: str | os.PathLike, host: str, port: int
) -> ThreadingHTTPServer:
    """Make a server of a page; threads need two headers, workers a policy."""
    page = Path(folder, 'index.html').read_text(encoding='utf-8')
    headers = {
        'Content-Security-Policy': re.search('content="(default.*)"', page)[1],
        'Cross-Origin-Opener-Policy': 'same-origin',
        'Cross-Origin-Embedder-Policy': 'require-corp',
        'Cache-Control': 'no-cache',
    }

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for header in headers.items():
                self.send_header(*header)
            super().end_headers()

    handler = partial(Handler, directory=os.fspath(folder))
    return ThreadingHTTPServer((host, port), handler)

"""A static page that runs an exported network in a browser."""

import json
import os
import re
import subprocess
from colorsys import hsv_to_rgb
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..checkpoints.atomic import atomic_write
from .session import read_exported

INSTALL = 'npm install --ignore-scripts onnxruntime-web@1.30.0'
_BY_HAND = f'Or `{INSTALL}`, and --runtime node_modules/onnxruntime-web.'
_RUNTIME = (
    'dist/ort.wasm.min.mjs',
    'dist/ort-wasm-simd-threaded.mjs',
    'dist/ort-wasm-simd-threaded.wasm',
)


def make_web_page(
    network: str | os.PathLike,
    folder: str | os.PathLike,
    runtime: str | os.PathLike,
) -> None:
    """Write a folder that any web server turns into a page.

    ``network`` is exported with ``--preprocess``, ``runtime`` the folder of
    the npm package onnxruntime-web; a page in ``folder`` is replaced. Raises
    ValueError where the page cannot feed the network or a file is missing.
    """
    about = read_exported(network)[1]
    kind, channels = about['kind'], about['channels']
    if kind == 'backbone' or channels != 3 or not about['preprocess']:
        raise ValueError(
            f'{network} is a {kind} of {channels} channels; the page feeds '
            'photos to networks exported with --preprocess, no --backbone.'
        )
    web = Path(__file__).parent / 'web'
    files = {path.name: path for path in web.iterdir()}
    files |= {f'runtime/{name}': Path(runtime, name) for name in _RUNTIME}
    files['network.onnx'] = Path(network)
    if not all(path.is_file() for path in files.values()):
        raise ValueError(
            f'{runtime} is no onnxruntime-web; --runtime npm is. {_BY_HAND}'
        )
    contents = {name: path.read_bytes() for name, path in files.items()}
    hues = [hsv_to_rgb(i * 0.618 % 1, 0.8, 0.9) for i in range(64)]
    colours = [[round(255 * value) for value in hue] for hue in hues]
    about.update(
        name=Path(network).stem,
        size=about['size'] or about['traced_size'],
        palette=about['palette'] or colours,
        bytes=sum(map(len, contents.values())),
    )
    contents['network.json'] = json.dumps(about).encode()
    for name, content in contents.items():
        with atomic_write(Path(folder, name)) as draft:
            draft.write_bytes(content)


def fetch_runtime(folder: str | os.PathLike) -> Path:
    """Let npm install onnxruntime-web below a folder; return its own."""
    try:
        subprocess.run([*INSTALL.split(), '--prefix', folder], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f'{error}. {_BY_HAND}') from error
    return Path(folder, 'node_modules', 'onnxruntime-web')


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

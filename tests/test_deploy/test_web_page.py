"""The page, in headless Chromium, shows what onnxruntime gives in Python."""

import json
import re
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmmobilemamba.deploy import web_page
from mmmobilemamba.deploy.onnx_model import paste_masks
from mmmobilemamba.deploy.session import Session

DRIVER = Path(__file__).with_name('web_page.mjs').read_bytes()


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    """Give a folder with onnxruntime-web and what drives the browser."""
    folder = tmp_path_factory.mktemp('npm')
    command = [*web_page.INSTALL.split(), 'playwright-core']
    chromium = Path('/usr/bin/chromium').exists()
    if not chromium or subprocess.run(command, cwd=folder).returncode:
        pytest.skip('needs chromium, and packages that npm fetches')
    return folder


@pytest.mark.parametrize(
    ('name', 'size', 'turn'),
    [
        ('classifier', (192, 180), 1),
        ('segmentor', (3000, 4000), 1),
        # Halved, which rounds alike: random networks choose boxes by a hair.
        ('mask_rcnn', (160, 192), 6),
    ],
)
def test_page(export, packages, tmp_path, name, size, turn):
    network, _ = export(name, preprocess=True)
    runtime = packages / 'node_modules' / 'onnxruntime-web'
    web_page.make_web_page(network, tmp_path, runtime)
    about = json.loads((tmp_path / 'network.json').read_text())
    noise = np.random.default_rng(3).integers(130, size=(7, 6, 3))
    photo = cv2.resize(noise.astype(np.uint8), size[::-1], interpolation=2)
    file, exif = tmp_path / '1.jpg', Image.Exif()
    exif[0x0112] = turn  # orientation
    Image.fromarray(photo).save(file, quality=95, exif=exif)
    with web_page.make_server(tmp_path, 'localhost', 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://localhost:{server.server_port}/'
        command = ['node', '--input-type=module', '-', url, file]
        text = subprocess.check_output(command, cwd=packages, input=DRIVER)
        server.shutdown()
    result = json.loads(text)
    assert result['errors'] == [] and result['isolated']
    assert all(request.startswith(url) for request in result['requests'])
    assert result['blocked'] == ['https://example.org/'] * 2
    shown = [re.findall(r'[\d.]+', item) for item in result['items']]
    shown = np.array(shown, float)  # label, per cent or score, box
    paths = (packages / 'drawn.png', file)
    drawn, photo = (cv2.imread(str(path)) for path in paths)
    seen = photo[:, 10:170] if name == 'classifier' else photo
    scale = min(96 / seen.shape[0], 80 / seen.shape[1])
    height, width = (int(side * scale + 0.5) for side in seen.shape[:2])
    pixels = np.zeros((96, 80, 3), np.uint8)
    pixels[:height, :width] = cv2.resize(seen, (width, height))
    found = Session(network)(pixels.transpose(2, 0, 1)[None])
    found = {key: value[0] for key, value in found.items()}
    if name == 'classifier':
        best = np.argsort(-found['scores'], kind='stable')[:5]
        wanted = [best, 100 * found['scores'][best]]
    elif name == 'segmentor':
        labels = found['logits'].argmax(0)[:height, :width]
        wanted = np.unique(labels, return_counts=True)
        wanted = [wanted[0], 100 * wanted[1] / labels.size]
        colours = np.array(about['palette'], np.uint8)[labels, ::-1]
        exact = cv2.INTER_NEAREST_EXACT
        colours = cv2.resize(colours, (4000, 3000), interpolation=exact)
        error = np.abs(drawn - photo / 2 - colours / 2).max(axis=2)
        assert (error < 5).mean() > 0.999
    else:
        boxes = np.minimum(found['boxes'], [width, height] * 2)
        boxes *= np.tile([160 / width, 192 / height], 2)
        wanted = [found['labels'], 100 * found['scores'], *boxes.T]
        shown[:, 1] *= 100
        masks = torch.tensor(found['masks']), torch.tensor(boxes).float()
        masks = paste_masks(*masks, (192, 160), about['mask_threshold'])
        coloured = cv2.absdiff(drawn, photo).max(axis=2) > 10
        assert coloured[masks.any(0)].mean() > 0.95
    assert shown == pytest.approx(np.transpose(wanted), abs=0.51)


def test_network_without_preprocessing(export, tmp_path):
    with pytest.raises(ValueError, match='--preprocess'):
        web_page.make_web_page(export('segmentor')[0], tmp_path, tmp_path)

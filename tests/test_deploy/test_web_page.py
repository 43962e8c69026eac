"""The page, in headless Chromium, shows what onnxruntime gives in Python."""

import base64
import json
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

DRIVER = Path(__file__).with_name('web_page.mjs')
QUARTER_TURN = Image.Exif()
QUARTER_TURN[0x0112] = 6


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    """Give a folder with onnxruntime-web and what drives the browser."""
    if not Path('/usr/bin/chromium').exists():
        pytest.skip('no chromium')
    folder = tmp_path_factory.mktemp('npm')
    try:
        web_page.fetch_runtime(folder)
        command = ['npm', 'install', '--ignore-scripts', 'playwright-core']
        subprocess.run(command, cwd=folder, check=True)
    except (ValueError, subprocess.CalledProcessError) as error:
        pytest.skip(f'npm fetches no packages here: {error}')
    return folder


def look(folder, packages, *files):
    """Return what the page in a folder says, lists and draws of files."""
    with web_page.make_server(folder, 'localhost', 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://localhost:{server.server_port}/'
        command = ['node', '--input-type=module', '-', url, *files]
        text = subprocess.check_output(
            command, cwd=packages, input=DRIVER.read_bytes()
        )
        server.shutdown()
    result = json.loads(text)
    assert result['errors'] == []
    assert all(request.startswith(url) for request in result['requests'])
    assert result['isolated'], 'no threads'
    return result['files']


@pytest.mark.parametrize(
    ('name', 'size', 'exif'),
    [
        ('classifier', (192, 180), b''),
        ('segmentor', (3000, 4000), b''),
        # Halved, which rounds alike: random networks choose boxes by a hair.
        ('mask_rcnn', (160, 192), QUARTER_TURN),
    ],
)
def test_page(export, packages, tmp_path, name, size, exif):
    network, _ = export(name, preprocess=True)
    runtime = packages / 'node_modules' / 'onnxruntime-web'
    web_page.make_web_page(network, tmp_path, runtime)
    about = json.loads((tmp_path / 'network.json').read_text())
    about['classes'] = [f'<{i}>' for i in range(99)]  # text, no markup
    (tmp_path / 'network.json').write_text(json.dumps(about))
    file, broken = tmp_path / '1.jpg', tmp_path / '<i>.jpg'
    noise = np.random.default_rng(3).integers(130, size=(7, 6, 3))
    photo = cv2.resize(noise.astype(np.uint8), size[::-1], interpolation=2)
    Image.fromarray(photo).save(file, quality=95, exif=exif)
    broken.touch()
    (_, items, drawn), (said, *_) = look(tmp_path, packages, file, broken)
    assert '<i>.jpg is no image' in said
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(drawn), 'u1'), 1)

    photo = cv2.imread(str(file))
    seen = photo[:, 10:170] if name == 'classifier' else photo
    scale = min(96 / seen.shape[0], 80 / seen.shape[1])
    height, width = (int(side * scale + 0.5) for side in seen.shape[:2])
    pixels = np.zeros((96, 80, 3), np.uint8)
    pixels[:height, :width] = cv2.resize(seen, (width, height))
    found = Session(network)(pixels.transpose(2, 0, 1)[None])
    shown = [item.split() for item in items]
    if name == 'segmentor':
        labels = found['logits'][0].argmax(0)[:height, :width]
        assert [n for n, *_ in shown] == [f'<{i}>' for i in np.unique(labels)]
        rows = ((np.arange(3000) + 0.5) * height / 3000).astype(int)
        columns = ((np.arange(4000) + 0.5) * width / 4000).astype(int)
        labels = labels[np.ix_(rows, columns)]
        colours = np.array(about['palette'])[labels, ::-1]
        error = np.abs(drawn - photo / 2 - colours / 2).max(axis=2)
        assert (error < 5).mean() > 0.999
        return
    scores = found['scores'].ravel()
    best = np.argsort(-scores, kind='stable')
    best = best[: 5 if name == 'classifier' else None]
    labels = found.get('labels', np.arange(99)).ravel()[best]
    assert [n for n, *_ in shown] == [f'<{i}>' for i in labels]
    listed = np.array([float(score) for _, score, *_ in shown])
    listed /= 100 if name == 'classifier' else 1  # per cent
    assert listed == pytest.approx(scores[best], abs=0.006)
    if name == 'mask_rcnn':
        listed = [list(map(float, box.split(','))) for *_, box in shown]
        boxes = np.minimum(found['boxes'][0], [width, height] * 2)
        boxes = boxes * np.tile([160 / width, 192 / height], 2)
        assert np.array(listed) == pytest.approx(boxes, abs=0.5)
        pasted = paste_masks(
            torch.tensor(found['masks'][0]),
            torch.tensor(boxes, dtype=torch.float32),
            photo.shape[:2],
            about['mask_threshold'],
        )
        coloured = np.abs(drawn.astype(int) - photo).max(axis=2) > 10
        assert coloured[pasted.numpy().any(axis=0)].mean() > 0.95


@pytest.mark.parametrize('preprocess', [False, True])
def test_without_preprocessing_or_runtime(export, tmp_path, preprocess):
    network, _ = export('segmentor', preprocess=preprocess)
    wanted = '`npm install .*onnxruntime-web@1' if preprocess else '--preproc'
    with pytest.raises(ValueError, match=wanted):
        web_page.make_web_page(network, tmp_path / 'page', tmp_path)
    assert not (tmp_path / 'page').exists()

"""The page, in headless Chromium, shows what onnxruntime gives in Python."""

import base64
import json
import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

from mmmobilemamba.deploy import web_page
from mmmobilemamba.deploy.graph import set_metadata
from mmmobilemamba.deploy.session import Session

CLASSES = ['<i>one</i>', 'two', 'three', 'four', 'five']
ORIENTATION = 0x0112  # in EXIF


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    """Give a folder with onnxruntime-web and what drives the browser."""
    if not shutil.which('chromium'):
        pytest.skip('no chromium')
    folder = tmp_path_factory.mktemp('npm')
    try:
        web_page.fetch_runtime(folder)
        command = ['npm', 'install', '--ignore-scripts', 'playwright-core']
        subprocess.run(command, cwd=folder, check=True)
    except (ValueError, subprocess.CalledProcessError) as error:
        pytest.skip(f'npm fetches no packages here: {error}')
    return folder


def open_page(folder, packages, *files):
    """Return what the page of a folder says and draws of files."""
    driver = Path(__file__).with_name('web_page.mjs').read_text()
    with web_page.make_server(folder, 'localhost', 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://localhost:{server.server_port}/'
        command = ['node', '--input-type=module', '-']
        done = subprocess.run(
            [*command, shutil.which('chromium'), url, *files],
            cwd=packages,
            input=driver,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        server.shutdown()
    result = json.loads(done.stdout)
    assert all(request.startswith(url) for request in result['requests'])
    return result


@pytest.mark.parametrize(
    ('name', 'size', 'orientation'),
    [
        ('classifier', (192, 180), 1),
        ('segmentor', (3000, 4000), 1),
        ('mask_rcnn', (200, 270), 6),
    ],
)
def test_page(export, packages, tmp_path, name, size, orientation):
    network = tmp_path / 'network.onnx'
    model = onnx.load(export(name, preprocess=True)[0])
    about = json.loads(model.metadata_props[0].value)
    set_metadata(model, dict(about, classes=CLASSES))
    onnx.save(model, network)
    runtime = packages / 'node_modules' / 'onnxruntime-web'
    web_page.make_web_page(network, tmp_path, runtime)
    noise = np.random.default_rng(3).integers(130, size=(7, 6, 3))
    photo = cv2.resize(noise.astype(np.uint8), size[::-1], interpolation=2)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(photo).save(tmp_path / '1.jpg', quality=95, exif=exif)
    (tmp_path / '<i>.jpg').write_text('nothing')

    result = open_page(
        tmp_path, packages, tmp_path / '1.jpg', tmp_path / '<i>.jpg'
    )
    (_, items, drawn), (said, *_) = result['files']
    assert result['errors'] == []
    assert 'threads: 1' not in result['threads']
    assert '<i>.jpg is no image' in said
    drawn = np.frombuffer(base64.b64decode(drawn), np.uint8)
    drawn = cv2.imdecode(drawn, cv2.IMREAD_COLOR)

    photo = cv2.imread(str(tmp_path / '1.jpg'))
    seen = photo[:, 10:170] if name == 'classifier' else photo
    scale = min(96 / seen.shape[0], 80 / seen.shape[1])
    height, width = (int(side * scale + 0.5) for side in seen.shape[:2])
    pixels = np.zeros((96, 80, 3), np.uint8)
    pixels[:height, :width] = cv2.resize(seen, (width, height))
    found = Session(network)(pixels.transpose(2, 0, 1)[None])
    if name == 'segmentor':
        labels = found['logits'][0].argmax(0)[:height, :width]
        rows, columns = (
            np.floor((np.arange(side) + 0.5) * part / side).astype(int)
            for side, part in zip(size, labels.shape, strict=True)
        )
        palette = json.loads((tmp_path / 'network.json').read_text())[
            'palette'
        ]
        colours = np.array(palette)[labels[np.ix_(rows, columns)], ::-1]
        error = np.abs(drawn - photo / 2 - colours / 2).max(axis=2)
        assert len(items) == len(np.unique(labels)) > 1
        assert (error < 5).mean() > 0.999
        return
    scores = found['scores'].flatten()
    order = np.argsort(-scores, kind='stable')
    labels = found['labels'][0] if 'labels' in found else np.arange(5)
    assert [item.split()[0] for item in items] == [
        CLASSES[label] for label in labels[order]
    ]
    shown = np.array([item.split()[1] for item in items], float)
    if name == 'classifier':
        assert shown == pytest.approx(100 * scores[order], abs=0.1)
        return
    assert shown == pytest.approx(scores, abs=0.01)
    assert photo.shape == drawn.shape == (270, 200, 3)
    shown = np.array([item.split()[-1].split(',') for item in items], float)
    boxes = np.minimum(found['boxes'][0], [width, height] * 2)
    boxes = boxes * np.tile([200 / width, 270 / height], 2)
    assert shown == pytest.approx(boxes, abs=0.5)


@pytest.mark.parametrize(
    ('kind', 'options', 'wanted'),
    [
        (None, {}, 'export.* --preprocess'),
        ('backbone', dict(preprocess=True, backbone=True), 'a backbone'),
        (None, dict(preprocess=True), 'npm install .*onnxruntime-web@1'),
    ],
)
def test_what_makes_no_page(export, tmp_path, kind, options, wanted):
    network, _ = export('segmentor', kind, **options)
    with pytest.raises(ValueError, match=wanted):
        web_page.make_web_page(network, tmp_path / 'page', tmp_path)
    assert not (tmp_path / 'page').exists()

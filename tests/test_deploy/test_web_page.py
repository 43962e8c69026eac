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


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    if not shutil.which('chromium'):
        pytest.skip('no chromium')
    folder = tmp_path_factory.mktemp('npm')
    try:
        web_page.fetch_runtime(folder)
        command = ['npm', 'install', '--ignore-scripts', 'playwright-core']
        subprocess.run(command, cwd=folder, check=True)
    except (ValueError, subprocess.CalledProcessError) as error:
        pytest.skip(f'npm has no packages here: {error}')
    return folder


@pytest.fixture
def look(packages, export, tmp_path):
    """Give what a tiny network of 96x80 gives of a photo, here and there."""

    def look(name, size, file, seen=np.s_[:], **options):
        noise = np.random.default_rng(3).integers(130, size=(7, 6, 3))
        photo = cv2.resize(noise.astype(np.uint8), size[::-1], interpolation=2)
        broken, file = tmp_path / '<i>.jpg', tmp_path / file
        broken.write_text('nothing')
        Image.fromarray(photo).save(file, quality=95, **options)
        photo = cv2.imread(str(file))
        whole, photo = photo, photo[seen]
        model = onnx.load(export(name, preprocess=True)[0])
        about = json.loads(model.metadata_props[0].value)
        set_metadata(model, dict(about, classes=CLASSES))
        onnx.save(model, tmp_path / 'network.onnx')
        runtime = packages / 'node_modules' / 'onnxruntime-web'
        web_page.make_web_page(tmp_path / 'network.onnx', tmp_path, runtime)
        about = json.loads((tmp_path / 'network.json').read_text())
        with web_page.make_server(tmp_path, 'localhost', 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f'http://localhost:{server.server_port}/'
            command = ['node', '--input-type=module', '-', 'chromium']
            command[3] = shutil.which('chromium')
            driver = Path(__file__).with_name('web_page.mjs').read_text()
            done = subprocess.run(
                [*command, url, file, broken],
                cwd=packages,
                input=driver,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            server.shutdown()
        there = json.loads(done.stdout)
        assert there['errors'] == []
        assert all(request.startswith(url) for request in there['requests'])
        assert there['isolated'] and 'example.org' in there['blocked']
        assert '<i>.jpg is no image' in there['shown'][str(broken)]['status']
        shown = there['shown'][str(file)]
        drawn = np.frombuffer(base64.b64decode(shown['drawn']), np.uint8)
        drawn = cv2.imdecode(drawn, cv2.IMREAD_COLOR)
        scale = min(96 / photo.shape[0], 80 / photo.shape[1])
        used = [int(side * scale + 0.5) for side in photo.shape[:2]]
        pixels = np.zeros((96, 80, 3), np.uint8)
        pixels[: used[0], : used[1]] = cv2.resize(photo, used[::-1])
        found = Session(tmp_path / 'network.onnx')(
            pixels.transpose(2, 0, 1)[None]
        )
        return shown['items'], drawn, found, whole, used, about

    return look


def test_classes(look):
    items, _, found, *_ = look(
        'classifier', (192, 180), 'a.png', np.s_[:, 10:170]
    )
    scores = found['scores'][0]
    for item, label in zip(items, np.argsort(-scores), strict=True):
        name, percent, _ = item.split()
        assert name == CLASSES[label]
        assert float(percent) == pytest.approx(100 * scores[label], abs=0.5)


def test_label_map_of_a_large_photo(look):
    _, drawn, found, photo, used, about = look(
        'segmentor', (3000, 4000), 'a.jpg'
    )
    labels = found['logits'][0].argmax(0)
    y, x = (
        ((np.arange(side) + 0.5) * part / side).astype(int)
        for side, part in zip(photo.shape, used)
    )
    colours = np.array(about['palette'])[labels[np.ix_(y, x)]][..., ::-1]
    error = np.abs(drawn - photo / 2 - colours / 2).max(axis=2)
    assert len(np.unique(labels)) > 1
    assert (error < 5).mean() > 0.999


def test_boxes_of_a_turned_photo(look):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter
    items, drawn, found, photo, used, _ = look(
        'mask_rcnn', (200, 270), 'a.jpg', exif=turned
    )
    assert photo.shape == drawn.shape == (270, 200, 3)
    boxes = np.minimum(found['boxes'][0], used[::-1] * 2)
    boxes *= np.tile(np.divide(photo.shape[1::-1], used[::-1]), 2)
    for i, item in enumerate(items):
        name, score, _, sides = item.split()
        assert name == CLASSES[found['labels'][0, i]]
        assert float(score) == pytest.approx(found['scores'][0, i], abs=0.01)
        assert np.abs(np.array(sides.split(','), float) - boxes[i]).max() < 0.5
    assert len(items) == len(boxes)
    assert (drawn != photo).any(axis=2).mean() > 0.1  # the masks


@pytest.mark.parametrize('options', [{}, dict(preprocess=True, backbone=True)])
def test_what_the_page_cannot_feed(export, tmp_path, options):
    kind = 'backbone' if options else None
    path, _ = export('segmentor', kind, **options)
    with pytest.raises(ValueError, match='--preprocess'):
        web_page.make_web_page(path, tmp_path, tmp_path)


def test_no_runtime(export, tmp_path):
    path, _ = export('segmentor', preprocess=True)
    with pytest.raises(ValueError, match='npm install .*onnxruntime-web@1'):
        web_page.make_web_page(path, tmp_path / 'page', tmp_path)
    assert not (tmp_path / 'page').exists()

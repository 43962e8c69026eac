"""Smaller numbers keep what a network predicts, or no file is left."""

import cv2
import numpy as np
import onnx
import pytest

from mmmobilemamba.deploy.float16 import to_float16
from mmmobilemamba.deploy.int8 import SCAN, quantize
from mmmobilemamba.deploy.session import Session


@pytest.fixture(scope='module')
def network(export):
    return export('classifier', preprocess=True)[0]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder per class."""
    folder = tmp_path_factory.mktemp('images')
    random = np.random.default_rng(0)
    for name in 'abc':
        (folder / name).mkdir()
        coarse = random.integers(0, 256, (9, 8, 3), np.uint8)
        cv2.imwrite(f'{folder}/{name}/0.png', cv2.resize(coarse, (80, 96)))
    return folder


@pytest.fixture(scope='module')
def difference(network, images):
    """Give a function that compares the scores of a file and the network."""

    def call(path):
        files = Session(path), Session(network)
        pixels = [cv2.imread(str(p)) for p in sorted(images.glob('*/*'))]
        batches = [p.transpose(2, 0, 1)[None] for p in pixels]
        got, wanted = ([f(b)['scores'] for b in batches] for f in files)
        return np.abs(np.subtract(got, wanted)).max()

    return call


@pytest.fixture(scope='module')
def quantised(network, images, tmp_path_factory):
    out = tmp_path_factory.mktemp('int8') / 'model.onnx'
    metrics = iter([('accuracy', 50.0), ('accuracy', 49.5)])
    report = quantize(
        network, out, images, count=3, measure=lambda _: next(metrics)
    )
    assert 'accuracy: 50.00 -> 49.50' in report and 'latency' in report
    return out


def test_int8_predicts_nearly_the_same(network, quantised, difference):
    # 0.03 with onnxruntime 1.31, 0.05 with 1.23, the last for Python 3.10.
    assert 0 < difference(quantised) < 0.08
    assert quantised.stat().st_size < network.stat().st_size


def test_int8_leaves_scan_and_residual_stream_in_float(quantised):
    model = onnx.load(quantised)
    made_by = {out: n for n in model.graph.node for out in n.output}
    found = set()
    for node in model.graph.node:
        if node.op_type == 'Exp':
            assert SCAN in node.name
            source = made_by[node.input[0]].op_type
            assert source != 'DequantizeLinear'
        if node.op_type != 'Conv':
            continue
        depthwise = any(a.name == 'group' and a.i > 1 for a in node.attribute)
        source = made_by.get(node.input[0])
        of_sum = depthwise and source.op_type == 'Add'
        assert (made_by.get(node.input[1]) is None) == of_sum, node.name
        found.add((depthwise, of_sum))
    assert found == {(True, True), (True, False), (False, False)}


def test_loss_of_the_metric_leaves_no_file(network, images, tmp_path):
    metrics = iter([('mIoU', 70.0), ('mIoU', 68.5)] * 2)
    job = dict(count=1, measure=lambda _: next(metrics))
    with pytest.raises(ValueError, match='from 70.00 to 68.50'):
        quantize(network, tmp_path / 'x.onnx', images, **job)
    assert not list(tmp_path.iterdir())
    quantize(network, tmp_path / 'x.onnx', images, max_loss=2.0, **job)


def test_bad_input_is_named(network, quantised, tmp_path):
    (tmp_path / 'a.png').write_text('words')
    # The evaluation takes long, and comes later.
    with pytest.raises(ValueError, match='a.png'):
        quantize(network, tmp_path / 'x', tmp_path, measure=pytest.fail)
    with pytest.raises(ValueError, match='int8 already'):
        to_float16(quantised, tmp_path / 'x')


def test_fp16_computes_the_same(network, tmp_path, difference):
    out = tmp_path / 'model.onnx'
    to_float16(network, out)
    assert out.stat().st_size < 0.8 * network.stat().st_size
    assert 0 < difference(out) < 2e-2

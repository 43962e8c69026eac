"""Smaller numbers keep what a network predicts, or no file is left."""

import cv2
import numpy as np
import onnx
import pytest

from mmmobilemamba.deploy.export import ExportOptions, export_model
from mmmobilemamba.deploy.float16 import to_float16
from mmmobilemamba.deploy.precision import (
    SCAN,
    MetricLossError,
    quantize,
    read_calibration,
)
from mmmobilemamba.deploy.session import Session


@pytest.fixture(scope='module')
def network(make_model, tmp_path_factory):
    path = tmp_path_factory.mktemp('float') / 'model.onnx'
    options = ExportOptions(size=(96, 80), preprocess=True)
    export_model(make_model('classifier'), 'classifier', path, options)
    return path


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 8, 3))
        image = cv2.resize(coarse.astype(np.uint8), (80, 96))
        cv2.imwrite(f'{folder}/{seed}.png', image)
    return folder


def outputs(path, pictures):
    session = Session(path)
    images = [cv2.imread(str(p)) for p in sorted(pictures.iterdir())]
    return np.concatenate(
        [session(i.transpose(2, 0, 1)[None])['scores'] for i in images]
    )


@pytest.fixture(scope='module')
def quantised(network, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp('int8') / 'model.onnx'
    metrics = iter([('accuracy', 50.0), ('accuracy', 49.5)])
    return quantize(
        network, out, pictures, count=3, measure=lambda _: next(metrics)
    )


def test_int8_predicts_nearly_the_same(network, pictures, quantised):
    wanted = outputs(network, pictures)
    got = outputs(quantised.path, pictures)
    assert not np.array_equal(got, wanted)
    assert np.abs(got - wanted).max() < 0.05
    before, after = quantised.size_mb
    assert after < before
    assert 'accuracy: 50.00 -> 49.50 (-0.50 points)' in str(quantised)
    assert 'latency' in str(quantised)


def test_int8_leaves_the_scan_in_float(network, quantised):
    def scan(path):
        return [
            (node.op_type, node.name)
            for node in onnx.load(path).graph.node
            if SCAN in node.name and node.op_type == 'Exp'
        ]

    model = onnx.load(quantised.path)
    inside = [
        node
        for node in model.graph.node
        if SCAN in node.name
        and node.op_type not in ('Conv',)
        and 'QuantizeLinear' not in node.op_type
    ]
    assert scan(network) and scan(quantised.path) == scan(network)
    assert {n.op_type for n in inside} >= {'Exp', 'Mul', 'Add'}


def test_int8_leaves_the_residual_stream_in_float(quantised):
    model = onnx.load(quantised.path)
    made_by = {out: n for n in model.graph.node for out in n.output}
    found = set()
    for node in model.graph.node:
        if node.op_type != 'Conv':
            continue
        depthwise = any(a.name == 'group' and a.i > 1 for a in node.attribute)
        source = made_by.get(node.input[0])
        of_sum = depthwise and source.op_type == 'Add'
        weights = made_by.get(node.input[1])
        assert (weights is None) == of_sum, node.name
        found.add((depthwise, of_sum))
    assert found == {(True, True), (True, False), (False, False)}


def test_loss_of_the_metric_leaves_no_file(network, pictures, tmp_path):
    metrics = iter([('mIoU', 70.0), ('mIoU', 68.5)] * 2)

    def run(**options):
        return quantize(
            network,
            tmp_path / 'out' / 'model.onnx',
            pictures,
            count=1,
            measure=lambda _: next(metrics),
            **options,
        )

    with pytest.raises(MetricLossError, match='from 70.00 to 68.50'):
        run()
    assert list((tmp_path / 'out').iterdir()) == []
    assert run(max_loss=2.0).path.is_file()


def test_bad_input_is_named(network, pictures, quantised, tmp_path):
    out = tmp_path / 'model.onnx'
    empty = tmp_path / 'empty'
    (empty / 'within').mkdir(parents=True)
    for name in ('a.png', 'b.jpg'):
        (tmp_path / name).write_text('words')

    def measure(path):
        pytest.fail('the evaluation takes long, and comes later')

    with pytest.raises(ValueError, match='a.png, .*b.jpg'):
        quantize(network, out, tmp_path, measure=measure)
    with pytest.raises(FileNotFoundError, match='none does not exist'):
        quantize(network, out, tmp_path / 'none', measure=measure)
    with pytest.raises(FileNotFoundError, match='empty has no images'):
        quantize(network, out, empty, measure=measure)
    with pytest.raises(ValueError, match='count must be 1'):
        quantize(network, out, pictures, count=0)
    with pytest.raises(ValueError, match='method must be'):
        quantize(network, out, pictures, method='mean')
    with pytest.raises(ValueError, match='end in .onnx'):
        to_float16(network, tmp_path / 'model.mlmodel')
    with pytest.raises(ValueError, match='is int8 already'):
        to_float16(quantised.path, out)
    assert not out.exists()


def test_calibration_on_a_folder_per_class(network, pictures, tmp_path):
    for path in pictures.iterdir():
        (tmp_path / path.stem).mkdir()
        (tmp_path / path.stem / path.name).symlink_to(path)
    metadata = Session(network).metadata
    wanted = read_calibration(pictures, metadata, 3)
    got = read_calibration(tmp_path, metadata, 3)
    assert len(got) == 3 and np.array_equal(got, wanted)


def test_fp16_computes_the_same(network, pictures, tmp_path):
    change = to_float16(network, tmp_path / 'model.onnx')
    assert change.error < 2e-2
    before, after = change.size_mb
    assert after < 0.7 * before
    wanted = outputs(network, pictures)
    assert np.abs(outputs(change.path, pictures) - wanted).max() < 2e-2

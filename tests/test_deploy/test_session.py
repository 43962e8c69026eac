"""An exported file runs in any runtime, or says why it does not."""

import sys

import numpy as np
import pytest

from mmmobilemamba.deploy.export import ExportOptions, export_model
from mmmobilemamba.deploy.session import Session

KINDS = dict(
    classifier='classifier', segmentor='segmentor', retinanet='detector'
)


@pytest.fixture(scope='module')
def exported(make_model, tmp_path_factory):
    """Give a function that exports a tiny model with a free size."""
    folder = tmp_path_factory.mktemp('exported')

    def call(name):
        path = folder / f'{name}.onnx'
        if not path.exists():
            options = ExportOptions(
                size=(96, 80), dynamic_size=True, preprocess=True
            )
            export_model(make_model(name), KINDS[name], path, options)
        return path

    return call


@pytest.mark.parametrize('name', KINDS)
def test_openvino_computes_what_onnxruntime_does(exported, name):
    pytest.importorskip('openvino', reason='OpenVINO is an option')
    path = exported(name)
    ours = Session(path)
    theirs = Session(path, 'openvino', threads=1)
    assert theirs.dtype == ours.dtype
    assert theirs.metadata == ours.metadata
    for seed, size in enumerate([(96, 80), (65, 107)]):
        image = np.random.default_rng(seed).integers(
            0, 256, (1, 3, *size), np.uint8
        )
        wanted, got = ours(image), theirs(image)
        assert list(got) == list(wanted)
        for key, value in wanted.items():
            # A box moves by less than 1/100 pixel.
            limit = 1e-2 if key == 'boxes' else 1e-4 * np.abs(value).max()
            np.testing.assert_allclose(got[key], value, rtol=0, atol=limit)


def test_outputs_of_openvino_stay_when_it_runs_again(exported):
    pytest.importorskip('openvino', reason='OpenVINO is an option')
    session = Session(exported('classifier'), 'openvino')
    noise = np.random.default_rng(0)
    image = noise.integers(0, 256, (1, 3, 96, 80), np.uint8)
    first = session(image)['scores']
    kept = first.copy()
    assert not np.array_equal(session(255 - image)['scores'], kept)
    np.testing.assert_array_equal(first, kept)


def test_what_cannot_run_is_named(exported, monkeypatch):
    path = exported('classifier')
    with pytest.raises(ValueError, match="'onnxruntime', 'openvino'"):
        Session(path, 'tensorrt')
    with pytest.raises(ValueError, match='threads must be 1 or more, got 0'):
        Session(path, threads=0)
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(ImportError, match='pip install openvino'):
        Session(path, 'openvino')

"""An exported file runs in any runtime, or says why it does not."""

import sys

import numpy as np
import pytest

from mmmobilemamba.deploy.session import Session


@pytest.mark.parametrize('name', ['segmentor', 'mask_rcnn'])
def test_openvino_computes_what_onnxruntime_does(export, name):
    pytest.importorskip('openvino', reason='OpenVINO is an option')
    path, _ = export(name, dynamic_size=True)
    ours = Session(path)
    theirs = Session(path, 'openvino', threads=1)
    assert theirs.metadata == ours.metadata
    first = None
    noise = np.random.default_rng(0)
    for size in ((96, 80), (65, 107)):
        image = noise.standard_normal((1, 3, *size), np.float32)
        wanted, got = ours(image), theirs(image)
        assert list(got) == list(wanted)
        for key, value in wanted.items():
            # A box moves by less than 1/100 pixel, and its mask, which is
            # pooled from there, by 1/1000.
            limit = dict(boxes=1e-2, masks=1e-3).get(key)
            limit = limit or 1e-4 * np.abs(value).max()
            np.testing.assert_allclose(got[key], value, rtol=0, atol=limit)
        first = first or (got, {key: v.copy() for key, v in got.items()})
    # What it gave stays when it runs again.
    for key, value in first[1].items():
        np.testing.assert_array_equal(first[0][key], value)


def test_images_that_a_file_does_not_take(export):
    session = Session(export('classifier', preprocess=True)[0])
    with pytest.raises(ValueError, match='96x80'):
        session(np.zeros((1, 3, 96, 96), np.uint8))
    with pytest.raises(ValueError, match='1x3x96x80'):
        session(np.zeros((2, 3, 96, 80), np.uint8))
    free = Session(export('segmentor', dynamic_size=True)[0])
    with pytest.raises(ValueError, match='32'):
        free(np.zeros((1, 3, 31, 80), np.float32))


def test_what_cannot_run_is_named(export, monkeypatch, tmp_path):
    path, _ = export('classifier', preprocess=True)
    with pytest.raises(ValueError, match='tensorrt'):
        Session(path, 'tensorrt')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(ImportError, match='openvino'):
        Session(path, 'openvino')
    with pytest.raises(FileNotFoundError, match='none.onnx'):
        Session(tmp_path / 'none.onnx')
    (tmp_path / 'text.onnx').write_text('words')
    with pytest.raises(ValueError, match='text.onnx'):
        Session(tmp_path / 'text.onnx')

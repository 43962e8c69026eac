"""An exported file runs in any runtime, or says why it does not."""

import numpy as np
import onnx
import pytest

from mmmobilemamba.deploy.session import ExportedFileError, Session


@pytest.mark.parametrize('name', ['segmentor', 'mask_rcnn'])
def test_openvino_computes_what_onnxruntime_does(export, name):
    pytest.importorskip('openvino', reason='OpenVINO is an option')
    path, _ = export(name, dynamic_size=True)
    ours, theirs = Session(path), Session(path, 'openvino', threads=1)
    noise, pairs = np.random.default_rng(0), []
    for size in ((96, 80), (65, 107)):
        image = noise.standard_normal((1, 3, *size), np.float32)
        pairs.append((ours(image), theirs(image)))
    # Compared at the end: what it gave stays when it runs again.
    for wanted, got in pairs:
        assert list(got) == list(wanted)
        for key, value in wanted.items():
            # A box moves by less than 1/100 pixel, and its mask, which is
            # pooled from there, by 1/1000.
            limit = dict(boxes=1e-2, masks=1e-3).get(key)
            limit = limit or 1e-4 * np.abs(value).max()
            np.testing.assert_allclose(got[key], value, rtol=0, atol=limit)


def test_what_is_refused(export, tmp_path):
    free = export('segmentor', dynamic_size=True)[0]
    fixed = export('segmentor')[0]
    jobs = (free, (31, 80)), (free, (2048, 2080)), (fixed, (80, 96))
    for path, size in jobs:
        with pytest.raises(ExportedFileError):
            Session(path)(np.zeros((1, 3, *size), np.float32))
    path, model = tmp_path / 'x.onnx', onnx.load(fixed)
    model.opset_import[0].version = 99  # no runtime knows that yet
    for content in (model.SerializeToString(), b'<html>'):
        path.write_bytes(content)
        with pytest.raises(ExportedFileError, match='x.onnx'):
            Session(path)

"""An exported file runs in any runtime, or says why it does not."""

import numpy as np
import pytest

from mmmobilemamba.deploy.session import ImageSizeError, Session


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


@pytest.mark.parametrize('size', [(31, 80), (2048, 2080), (50, 80)])
def test_sizes_that_a_graph_does_not_hold_for(export, size):
    session = Session(export('segmentor', dynamic_size=size[0] != 50)[0])
    with pytest.raises(ImageSizeError, match='x'.join(map(str, size))):
        session(np.zeros((1, 3, *size), np.float32))

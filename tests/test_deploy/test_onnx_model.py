"""A file takes the place of a model in the hosts' evaluation."""

import copy

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmmobilemamba.deploy.onnx_model import OnnxModel, paste_masks


def test_windows_of_a_slide_config(export, make_model):
    """The file sees the same windows as the model, and gives the same."""
    pytest.importorskip('mmseg')
    from mmseg.structures import SegDataSample

    window = dict(mode='slide', crop_size=(96, 80), stride=(64, 50))
    path, _ = export('segmentor', preprocess=False)
    model = make_model('segmentor')
    whole, model.test_cfg = model.test_cfg, type(model.test_cfg)(window)
    image = torch.randn(1, 3, 150, 170)
    meta = dict(img_shape=(150, 170), ori_shape=(150, 170), pad_shape=None)
    samples = [SegDataSample(metainfo=meta)]
    try:
        wanted = model.predict(image, copy.deepcopy(samples))
        network = OnnxModel(path, test_cfg=window)
        found = network(image, copy.deepcopy(samples))
    finally:
        model.test_cfg = whole
    ours, theirs = found[0].seg_logits.data, wanted[0].seg_logits.data
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_masks_are_pasted_beside_a_classifier():
    """A process that read a classifier's config before is in its scope."""
    pytest.importorskip('mmdet')
    half = torch.zeros(1, 4, 4)
    half[:, :, 2:] = 1
    boxes = torch.tensor([[2.0, 1.0, 10.0, 5.0]])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        masks = paste_masks(half, boxes, (8, 12), threshold=0.5)
    wanted = torch.zeros(1, 8, 12, dtype=torch.bool)
    wanted[:, 1:5, 6:10] = True
    assert torch.equal(masks, wanted)
    assert np.prod(paste_masks(half[:0], boxes[:0], (8, 12), 0.5).shape) == 0

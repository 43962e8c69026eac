"""A file takes the place of a model in the hosts' evaluation."""

import copy

import torch
from mmengine.registry import DefaultScope

from mmmobilemamba.deploy.onnx_model import OnnxModel, paste_masks


def test_windows_of_a_slide_config(export, make_model, monkeypatch):
    """The file sees the same windows as the model, and gives the same."""
    model = make_model('segmentor')
    from mmseg.structures import SegDataSample

    window = dict(mode='slide', crop_size=(96, 80), stride=(64, 50))
    monkeypatch.setattr(model, 'test_cfg', type(model.test_cfg)(window))
    image = torch.randn(1, 3, 150, 170)
    meta = dict(img_shape=(150, 170), ori_shape=(150, 170), pad_shape=None)
    samples = [SegDataSample(metainfo=meta)]
    (wanted,) = model.predict(image, copy.deepcopy(samples))
    path, _ = export('segmentor')
    (found,) = OnnxModel(path, test_cfg=window)(image, samples)
    ours, theirs = found.seg_logits.data, wanted.seg_logits.data
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_masks_are_pasted_beside_a_classifier():
    """A process that read a classifier's config before is in its scope."""
    half = torch.zeros(1, 4, 4)
    half[:, :, 2:] = 1
    boxes = torch.tensor([[2.0, 1.0, 10.0, 5.0]])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        masks = paste_masks(half, boxes, (8, 12), threshold=0.5)
    wanted = torch.zeros(1, 8, 12, dtype=torch.bool)
    wanted[:, 1:5, 6:10] = True
    assert torch.equal(masks, wanted)
    assert paste_masks(half[:0], boxes[:0], (8, 12), 0.5).shape == (0, 8, 12)

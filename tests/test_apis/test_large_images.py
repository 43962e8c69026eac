"""Large images get the label maps and drawings that MMSegmentation makes."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.structures import PixelData

from mmmobilemamba.apis import large_images

pytest.importorskip('mmseg')


@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize('align', [False, True])
@pytest.mark.parametrize('ori_shape', [(90, 140), (211, 333), (37, 43)])
def test_class_by_class_predicts_the_same(monkeypatch, mode, align, ori_shape):
    from mmseg.models import EncoderDecoder
    from mmseg.structures import SegDataSample

    arch = dict(channels=(16, 24, 32), depths=(1, 1, 1))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = EncoderDecoder(
            backbone=dict(type='mmmobilemamba.MobileMamba', arch=arch),
            decode_head=dict(
                type='FCNHead',
                in_channels=32,
                in_index=2,
                channels=8,
                num_convs=1,
                num_classes=5,
                align_corners=align,
            ),
            test_cfg=ConfigDict(
                mode=mode, crop_size=(64, 96), stride=(24, 40)
            ),
        ).eval()
    meta = dict(ori_shape=ori_shape, img_shape=(90, 140))
    meta.update(pad_shape=(96, 160), padding_size=[0, 20, 0, 6])
    images = torch.randn(2, 3, 96, 160)

    def predict():
        samples = [SegDataSample(metainfo=meta) for _ in images]
        with torch.no_grad():
            found = model(images, samples, mode='predict')
        return [sample.pred_sem_seg.data for sample in found], found[0]

    wanted, _ = predict()
    large_images.bound_memory(model)
    _, sample = predict()
    assert 'seg_logits' in sample  # of small images
    monkeypatch.setattr(large_images, '_LIMIT', 0)
    found, sample = predict()
    assert 'seg_logits' not in sample
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        # Sums in another order may turn a pixel between two classes.
        assert (a != b).float().mean() < 1e-3


def test_drawn_as_by_the_host():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (120, 400, 3), dtype=np.uint8)
    # Classes of which one never occurs, and a pixel without a class.
    blocks = generator.choice([0, 2, 3], (6, 10))
    labels = cv2.resize(blocks, (400, 120), interpolation=0).astype('uint8')
    labels[5, 7] = 255
    meta = dict(
        classes=('sky', 'sea', 'ground', 'tree'),
        palette=[[9, 80, 200], [0, 0, 9], [90, 200, 1], [200, 9, 90]],
    )
    drawn = []
    with DefaultScope.overwrite_default_scope('mmseg'):
        import mmseg.visualization  # noqa: F401

        for scope in ('', 'mmmobilemamba.'):
            kind = f'{scope}SegLocalVisualizer'
            settings = dict(type=kind, name=kind, alpha=0.6)
            visualizer = VISUALIZERS.build(settings)
            data = PixelData(data=torch.from_numpy(labels)[None])
            drawn.append(
                visualizer._draw_sem_seg(
                    image, data, meta['classes'], meta['palette']
                ).astype(int)
            )
    # The host cuts off decimals.
    assert abs(drawn[0] - drawn[1]).max() <= 1

"""Large images get the label maps and drawings that MMSegmentation makes."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, VISUALIZERS, DefaultScope
from mmengine.structures import PixelData

from mmmobilemamba.apis import large_images

pytest.importorskip('mmseg')


def segmentor(classes, align):
    arch = dict(channels=(16, 24, 32), depths=(1, 1, 1))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        import mmseg.models  # noqa: F401

        return MODELS.build(
            dict(
                type='EncoderDecoder',
                backbone=dict(type='mmmobilemamba.MobileMamba', arch=arch),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=32,
                    in_index=2,
                    channels=8,
                    num_convs=1,
                    num_classes=max(classes, 2),
                    out_channels=classes,
                    threshold=0.5 if classes == 1 else None,
                    align_corners=align,
                    loss_decode=dict(
                        type='CrossEntropyLoss', use_sigmoid=classes == 1
                    ),
                ),
                test_cfg=ConfigDict(),
            )
        ).eval()


@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize('align', [False, True])
@pytest.mark.parametrize('ori_shape', [(90, 140), (211, 333), (37, 43)])
@pytest.mark.parametrize('classes', [5, 1])
def test_bands_predict_the_same(monkeypatch, mode, align, ori_shape, classes):
    from mmseg.structures import SegDataSample

    model = segmentor(classes, align)
    model.test_cfg.update(mode=mode, crop_size=(64, 96), stride=(24, 40))
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
    monkeypatch.setattr(large_images, '_BAND', 40000)
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
    labels = cv2.resize(blocks, (400, 120), interpolation=0).astype(int)
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

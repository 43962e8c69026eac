"""The SSD head predicts, which mmdet's own does not in 3.3."""

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models import SSDHead as HostSSDHead  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402


def make_head(head_type):
    return MODELS.build(
        dict(
            type=head_type,
            num_classes=3,
            in_channels=[8, 8],
            anchor_generator=dict(
                type='mmdet.SSDAnchorGenerator',
                scale_major=False,
                strides=[16, 32],
                ratios=[[2], [2]],
                min_sizes=[16, 32],
                max_sizes=[32, 64],
            ),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
            test_cfg=ConfigDict(
                nms_pre=100,
                nms=dict(type='nms', iou_threshold=0.45),
                min_bbox_size=0,
                score_thr=0.0,
                max_per_img=7,
            ),
        )
    ).eval()


def test_predicts():
    torch.manual_seed(0)
    head = make_head('mmmobilemamba.SSDHead')
    assert isinstance(head, HostSSDHead)
    feats = (torch.randn(1, 8, 4, 4), torch.randn(1, 8, 2, 2))
    meta = dict(
        img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)
    )
    with torch.no_grad():
        (result,) = head.predict_by_feat(*head(feats), batch_img_metas=[meta])
    assert result.bboxes.shape == (7, 4)
    assert ((0 <= result.labels) & (result.labels < 3)).all()
    # Class scores are a softmax, with the background as the last class.
    assert result.scores.max() < 1

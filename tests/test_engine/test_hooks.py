"""channels_last computes what the usual layout does."""

from types import SimpleNamespace

import torch
from mmcv.ops import RoIAlign
from torch import nn

from mmmobilemamba.engine import ChannelsLastHook


def test_channels_last_leaves_roi_align_right():
    model, images = nn.Module(), torch.randn(2, 3, 12, 14)
    model.data_preprocessor, model.pool = nn.Identity(), RoIAlign(3)
    model.conv = nn.Conv2d(3, 6, 3)
    rois = torch.tensor([[0, 1, 1, 6, 7.0], [1, 0, 0, 5, 5.0]])

    def run():
        data = model.data_preprocessor(dict(inputs=images))
        return model.pool(model.conv(data['inputs']), rois)

    expected = run()
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    inputs = model.data_preprocessor(dict(inputs=images))['inputs']
    for x in (model.conv.weight, inputs):
        assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(run(), expected)

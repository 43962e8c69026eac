from types import SimpleNamespace

import torch
from mmcv.ops import RoIAlign
from torch import nn

from mmmobilemamba.engine import ChannelsLastHook


def test_channels_last_leaves_roi_align_right():
    torch.manual_seed(0)
    model, images = nn.Module(), torch.randn(2, 3, 12, 14)
    model.data_preprocessor = nn.Identity()
    model.conv, model.pool = nn.Conv2d(3, 6, 3), RoIAlign(3)
    rois = torch.tensor([[0, 1, 1, 6, 7.0], [1, 0, 0, 5, 5.0]])

    def run():
        data = model.data_preprocessor(dict(inputs=images))
        return model.pool(model.conv(data['inputs']), rois)

    expected = run()
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(run(), expected)

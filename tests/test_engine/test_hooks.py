from types import SimpleNamespace

import torch
from mmcv.ops import RoIAlign
from torch import nn

from mmmobilemamba.engine import ChannelsLastHook


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.data_preprocessor = nn.Identity()
        self.conv = nn.Conv2d(3, 6, 3)
        self.pool = RoIAlign(3)

    def forward(self, pictures, rois):
        data = self.data_preprocessor(dict(inputs=pictures))
        return self.pool(self.conv(data['inputs']), rois)


def test_channels_last_leaves_roi_align_right():
    torch.manual_seed(0)
    model = Pooled()
    pictures = torch.randn(2, 3, 12, 14)
    rois = torch.tensor([[0, 1, 1, 6, 7.0], [1, 0, 0, 5, 5.0]])
    expected = model(pictures, rois)
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(pictures, rois), expected)

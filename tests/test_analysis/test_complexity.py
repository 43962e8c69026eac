"""Counts of multiply-accumulates and parameters."""

import pytest
import torch
from torch import nn

from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.models import MobileMamba
from mmmobilemamba.ops import BACKENDS, ENV_NAME, find_extension

SLOW, LARGE = pytest.mark.slow, (800, 1280)


# MACs of detectors as counted by MMDetection's own way.
@pytest.mark.parametrize(
    'pattern, size, macs, tolerance',
    [
        ('cls/mobilemamba/mobilemamba-t2_*-192px', (192, 192), 255e6, 0.01),
        ('cls/mobilemamba/mobilemamba-s6_*-224px', (224, 224), 652e6, 0.01),
        ('cls/mobilemamba/mobilemamba-b1_*-256px', (256, 256), 1080e6, 0.01),
        ('seg/deeplabv3/deeplabv3_*', (512, 512), 4.7e9, 0.03),
        pytest.param('det/mask_rcnn/*a-b1*', LARGE, 190.7e9, 1e-3, marks=SLOW),
        pytest.param('det/retinanet/*a-b1*', LARGE, 168.7e9, 1e-3, marks=SLOW),
    ],
)
def test_published_macs(repo, pattern, size, macs, tolerance):
    scopes = dict(cls='mmpretrain', det='mmdet', seg='mmseg')
    pytest.importorskip(scopes[pattern[:3]])
    path = sorted(repo.glob(f'configs/{pattern}.py'))[0]
    torch.manual_seed(0)
    counted = count_complexity(build_model(load_config(path)), size)
    assert counted.macs == pytest.approx(macs, rel=tolerance)


def test_every_backend_counts_alike(monkeypatch):
    if find_extension().module is None:
        pytest.skip('the scan extension is not built')
    found = set()
    for backend in BACKENDS:
        monkeypatch.setenv(ENV_NAME, backend)
        model = MobileMamba(dict(channels=(32, 40, 48), depths=(1, 1, 1)))
        for _ in range(2):  # as trained, then fused
            counted = count_complexity(model, (96, 70))
            assert not any('selective_scan' in op for op in counted.uncounted)
            model.switch_to_deploy()
        found.add(counted.macs)
    assert len(found) == 1


class Mixed(nn.Module):
    """Products of known cost that mmengine does not count."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        x = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        # One matrix for a batch of them.
        return torch.ones(5, 3) @ x.tan().reshape(2, 3, 3)


def test_products_by_hand_leave_the_model_as_it_is():
    model = Mixed().train()
    counted = count_complexity(model, (3, 2))
    attention, product = 6 * 3 * 12 + 2 * 6 * 6 * 3, 2 * 5 * 3 * 3
    assert counted.macs == attention + product
    assert counted.params == sum(p.numel() for p in model.parameters())
    assert 'aten::tan' in counted.uncounted
    assert model.training and model.attention.training

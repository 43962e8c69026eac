import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmobilemamba.analysis.fusing import calibrate_norms, fold_norms


class Net(nn.Module):
    """A norm to fold beside those that must stay."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)  # made first, run last
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.twice = nn.Conv2d(4, 4, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.split = nn.Conv2d(4, 4, 1)
        self.norm3, self.other = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.norm(self.conv(x))
        x = self.norm2(self.twice(self.norm1(self.twice(x)))).relu()
        x = self.split(x)
        return self.norm3(x) + self.other(x)


def randomised(module):
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return module.eval()


@pytest.fixture
def x():
    return torch.randn(
        2, 3, 16, 16, generator=torch.Generator().manual_seed(1)
    )


def test_norms_that_alone_read_a_convolution_are_folded(x):
    net = randomised(Net())
    wanted = net(x)
    assert fold_norms(net, lambda: net(x)) == 1
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)
    assert isinstance(net.norm, nn.Identity)
    kept = (net.norm1, net.norm2, net.norm3)
    assert all(isinstance(norm, nn.BatchNorm2d) for norm in kept)
    assert fold_norms(net, lambda: net(x)) == 0


def test_activation_within_a_norm_stays(x):
    layers = pytest.importorskip('timm.layers')
    net = randomised(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), layers.BatchNormAct2d(4, act_layer=nn.ReLU6)
        )
    )
    wanted = net(x)
    assert fold_norms(net, lambda: net(x)) == 1
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)
    assert float(net(x).detach().min()) == 0
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_network_that_reads_a_convolution_elsewhere_is_refused(x):
    class Sneaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + F.relu(x)

    net = randomised(Sneaky())
    with pytest.raises(ValueError, match='Sneaky computes something else'):
        fold_norms(net, lambda: net(x))


def test_calibrated_network_has_unit_scale(x):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3),
        nn.BatchNorm2d(4),
    ).eval()  # fmt: skip
    for conv in (net[0], net[2]):
        nn.init.normal_(conv.weight, std=30)
    calibrate_norms(net, lambda: net(x))
    out = net(x).detach()
    assert float(out.std()) == pytest.approx(1, abs=0.05)
    assert not any(module.training for module in net.modules())
    assert net[1].momentum == 0.1

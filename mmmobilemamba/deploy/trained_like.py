"""Random weights with which a network behaves as a trained one does."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..analysis.fusing import calibrate_norms

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)

# What layers that predict give, by their names: deviation and, where scores
# do not compete, mean. Such scores are apart from each other and few of them
# beat a threshold; boxes are not those of the anchors. What follows boxes
# comes after what gives them.
_PREDICTIONS = (
    {
        r'retina_cls': (1.5, -6.0),
        r'rpn_cls': (1.5, -3.0),
        r'(cls_convs\.\d+\.\d+|conv_seg|fc)': (2.0, None),
        r'(retina_reg|rpn_reg|reg_convs\.\d+\.\d+)': (0.3, None),
    },
    {r'(fc_cls|conv_logits)': (2.0, None), r'fc_reg': (0.3, None)},
)
# Share of the mean variance: a channel that noise leaves constant would be
# multiplied by hundreds.
_LEAST_VARIANCE = 0.05


@torch.no_grad()
def make_trained_like(
    model: nn.Module, run: Callable[[], object], seed: int
) -> None:
    """Give a model that was just built a trained one's scale, in place.

    As it is built some branches are multiplied with 0, and values grow or
    vanish with depth until scores are all alike or all 1, so that a wrong
    network would look right. Norms get random gains and the statistics of
    what they see, and layers that predict are scaled.

    Args:
        model (nn.Module): Model of a host library in evaluation mode.
        run (Callable): Lets it predict pictures, all its parts included.
        seed (int): Seed of the gains.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, _NORMS)]
    for norm in norms:
        for value, middle in ((norm.weight, 1.0), (norm.bias, 0.0)):
            if value is not None:
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(middle + 0.6 * (noise - 0.5))
    calibrate_norms(model, run)
    for norm in norms:
        if isinstance(norm, _BatchNorm):
            variance = norm.running_var
            variance.clamp_(min=_LEAST_VARIANCE * float(variance.mean()))
    for settings in _PREDICTIONS:
        scalings = [
            _Scaling(layer, deviation, mean)
            for layer, deviation, mean in _find(model, settings)
        ]
        run()
        for scaling in scalings:
            scaling.apply()


class _Scaling:
    """Watches what a layer gives, and scales it once.

    A head that is shared by levels is scaled by the level that varies most.

    Args:
        layer (nn.Module): Convolution or linear layer.
        deviation (float): Wanted standard deviation.
        mean (float, optional): Wanted mean. Defaults to None, any.
    """

    def __init__(self, layer: nn.Module, deviation: float, mean: float | None):
        self.layer, self.deviation, self.mean = layer, deviation, mean
        self.widest, self.middle = 0.0, 0.0
        self.handle = layer.register_forward_hook(self._watch)

    def _watch(self, layer: nn.Module, args: tuple, out: Tensor) -> None:
        width = float(out.std()) if out.numel() > 1 else 0.0
        if width > self.widest:
            self.widest, self.middle = width, float(out.mean())

    def apply(self) -> None:
        """Scale the layer by what was seen, and watch no more."""
        self.handle.remove()
        if not self.widest:
            return
        factor = self.deviation / self.widest
        self.layer.weight *= factor
        if self.layer.bias is not None:
            self.layer.bias *= factor
            if self.mean is not None:
                self.layer.bias += self.mean - factor * self.middle


def _find(model: nn.Module, settings: dict) -> list[tuple]:
    """Find layers that predict, each with deviation and mean."""
    kinds = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
    return [
        (module, *values)
        for name, module in model.named_modules()
        for pattern, values in settings.items()
        if isinstance(module, kinds)
        and re.search(rf'head\.(.*\.)?{pattern}$', name)
    ]

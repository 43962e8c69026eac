"""Whether heads count on the strides of the maps that they get."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .input_size import input_channels

# Side of the image that maps are measured with, in pixels.
_SIDE = 256
# What unpadded borders and odd image sizes may add; wrong strides are off by
# a factor of two or more.
_TOLERANCE = 1.4


def check_strides(model: nn.Module) -> None:
    """Compare the strides that a detector's parts count on with the real ones.

    With others a training runs, and its boxes lie over a corner of the image.
    Backbone and neck are run once; where that gives no answer, or the model,
    of any library and on any device, has no such parts, nothing is said.

    Raises:
        ValueError: Anchors, points, RoI extractors or a pixel decoder count
            on other strides, or the neck does not take the backbone's maps.
            The message names both, and the neck that mends it.
    """
    detectors = (m for m in model.modules() if hasattr(m, 'extract_feat'))
    detectors = (m for m in detectors if hasattr(m, 'backbone'))
    detector = next(detectors, nn.Identity())
    # Most levels first: these are what a neck has to make.
    parts = sorted(_parts(detector), key=lambda part: -len(part[1]))
    if not parts:
        return
    _, levels, size = parts[0]
    for module in detector.backbone.modules():  # of timm, for one size
        size = getattr(module, 'input_size', None) or size
    try:
        channels, strides = _measure(detector, detector.backbone, size)
    except Exception:
        return
    neck = getattr(detector, 'neck', None)
    cure = (
        "neck=dict(type='mmmobilemamba.DeconvFPN', "
        f'in_channels={channels}, in_strides={strides}, '
        f'out_channels={getattr(neck, "out_channels", 256)}, out_strides='
    )
    try:
        _, real = _measure(detector, detector.extract_feat, size)
    except Exception as error:
        wanted = getattr(neck, 'in_channels', None)
        if isinstance(wanted, list | tuple) and list(wanted) != channels:
            raise ValueError(
                f'The neck {type(neck).__name__} is for maps of {wanted} '
                f'channels and gets {channels}; {cure}{levels}) fits.'
            ) from error
        return
    for name, wanted, _ in parts:
        if len(wanted) == 1 < len(real):  # such as HTC's, of a map of its own
            continue
        # Those that read fewer maps read the first ones.
        pairs = zip(real, wanted, strict=False)
        if any(max(a / b, b / a) > _TOLERANCE for a, b in pairs):
            raise ValueError(
                f'model.{name} counts on maps of strides {wanted} pixels and '
                f'gets {real}: its places in the image would be wrong. Give '
                'it these, or, if other parts count on the same, make those '
                f'by {cure}{wanted}).'
            )


def _parts(detector: nn.Module) -> Iterator[tuple]:
    """Yield names of what counts on strides, these, and a size of images."""
    for name, module in detector.named_modules():
        for key, value in vars(module).items():
            if key == 'featmap_strides':
                yield name, list(value), _SIDE
            elif hasattr(value, 'grid_priors'):
                strides = [stride for stride, _ in value.strides]
                side = max(_SIDE, 2 * max(strides))
                # An SSD's are for images of one size.
                yield name, strides, getattr(value, 'input_size', side)


@torch.no_grad()
def _measure(
    detector: nn.Module, part: Callable, size: int | tuple[int, int]
) -> tuple[list[int], list[int]]:
    """Return channels and strides of the maps of a blank image."""
    height, width = (size, size) if isinstance(size, int) else size
    device, training = next(detector.parameters()).device, detector.training
    detector.eval()
    try:
        shape = (1, input_channels(detector), height, width)
        maps = part(torch.zeros(shape, device=device))
    finally:
        detector.train(training)
    maps = [maps] if isinstance(maps, Tensor) else maps
    strides = [round(width / m.shape[3]) for m in maps]
    return [m.shape[1] for m in maps], strides

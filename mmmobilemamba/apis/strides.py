"""Whether heads count on the strides of the maps that they get."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..models.backbones.pyramid import PyramidBackbone
from .input_size import input_channels

# Side of the image that maps are measured with, in pixels.
_SIDE = 256
# What unpadded borders and odd image sizes may add; wrong strides are off by
# a factor of two or more.
_TOLERANCE = 1.4
# Others, such as HTC's semantic one, read maps of their own.
_ROI_EXTRACTORS = ('bbox_roi_extractor', 'mask_roi_extractor')
_PLAIN = 'Give it the strides that it gets.'

Wanted = tuple[str, list[int], int | None]


def check_strides(model: nn.Module) -> None:
    """Compare the strides that a detector's parts count on with the real ones.

    With others a training runs, and its boxes lie over a corner of the image.
    Backbone and neck are run once; where that gives no answer, or the model
    has no such parts, nothing is said.

    Args:
        model (nn.Module): Model of any library; it is left as it is.

    Raises:
        ValueError: Anchors, points, RoI extractors or a pixel decoder count
            on other strides, or the neck does not take the backbone's maps.
            The message names both, and the neck that mends it.
    """
    for module in model.modules():
        backbone = getattr(module, 'backbone', None)
        if hasattr(module, 'extract_feat') and isinstance(backbone, nn.Module):
            parts = sorted(_parts(module), key=lambda part: -len(part[1]))
            if parts:
                _check(module, parts)
            return


def _parts(detector: nn.Module) -> Iterator[Wanted]:
    """Yield name, strides and image size of what counts on strides."""
    for name, module in detector.named_modules():
        owner = name.rstrip('.0123456789').rpartition('.')[2]
        strides = getattr(module, 'featmap_strides', None)
        if owner in _ROI_EXTRACTORS and strides:
            yield name, list(strides), None
        if owner == 'mask_head':  # CondInst's, on a map of its own
            continue
        for key, value in vars(module).items():
            if key.endswith('_generator') and hasattr(value, 'grid_priors'):
                size = getattr(value, 'input_size', None)
                size = size[0] if isinstance(size, tuple) else size
                yield name, [x for x, _ in value.strides], size


def _check(detector: nn.Module, parts: list[Wanted]) -> None:
    holder = detector
    if isinstance(detector.backbone, PyramidBackbone):
        holder = detector.backbone
    backbone, neck = holder.backbone, getattr(holder, 'neck', None)
    side = max(_SIDE, *(2 * max(strides) for _, strides, _ in parts))
    side = next((fixed for _, _, fixed in parts if fixed), side)
    size = getattr(backbone, 'input_size', None) or (side, side)
    try:
        channels, strides = _run(detector, backbone, size)
    except Exception:
        return
    source = type(backbone).__name__
    if neck is not None:
        source += f' and {type(neck).__name__}'
    cure = _cure(holder, channels, strides, parts[0][1])
    try:
        _, real = _run(detector, detector.extract_feat, size)
    except Exception:
        wanted = getattr(neck, 'in_channels', None)
        if isinstance(wanted, list | tuple) and list(wanted) != channels:
            raise ValueError(
                f'The neck {type(neck).__name__} is for maps of '
                f'{_listed(wanted)} channels, and {type(backbone).__name__} '
                f'gives {_listed(channels)}, of strides {_listed(strides)}. '
                f'{cure}'
            ) from None
        return
    for name, wanted, _ in parts:
        # Those that read fewer maps read the first ones.
        first = real[: len(wanted)]
        if any(
            max(a / b, b / a) > _TOLERANCE
            for a, b in zip(first, wanted, strict=False)
        ):
            raise ValueError(
                f'model.{name} counts on maps of strides {_listed(wanted)} '
                f'pixels and gets {_listed(first)} of {source}: its '
                'places in the image would be wrong. '
                f'{cure if name == parts[0][0] else _PLAIN}'
            )


@torch.no_grad()
def _run(
    detector: nn.Module,
    part: Callable[[Tensor], Tensor | Sequence[Tensor]],
    size: tuple[int, int],
) -> tuple[list[int], list[float]]:
    """Return channels and strides of the maps of a blank image."""
    weight = next(detector.parameters())
    shape = 1, input_channels(detector), *size
    modes = {module: module.training for module in detector.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.random.fork_rng():
            maps = part(torch.zeros(shape, device=weight.device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    maps = [maps] if isinstance(maps, Tensor) else maps
    return [m.shape[1] for m in maps], [size[1] / m.shape[3] for m in maps]


def _cure(
    holder: nn.Module,
    channels: list[int],
    strides: list[float],
    wanted: list[int],
) -> str:
    """Return the neck that makes the strides wanted, if it can."""
    strides = [round(stride) for stride in strides]
    if not set(strides) & set(wanted) or any(
        [2 * stride for stride in row[:-1]] != row[1:]
        for row in (strides, wanted)
    ):
        return _PLAIN
    given = f'in_channels={channels}, in_strides={strides}, '
    if isinstance(holder, PyramidBackbone):
        given = ''  # it tells its neck
    out = getattr(getattr(holder, 'neck', None), 'out_channels', 256)
    return (
        'The neck that makes them: neck=dict(_delete_=True, '
        f"type='mmmobilemamba.DeconvFPN', {given}out_channels={out}, "
        f'out_strides={wanted}).'
    )


def _listed(numbers: Sequence[float]) -> str:
    return ', '.join(f'{number:g}' for number in numbers)

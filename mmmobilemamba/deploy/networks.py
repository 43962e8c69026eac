"""Models of the hosts as networks with one image in and named tensors out."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ..apis.input_size import input_channels
from ..ops import MAX_TOKENS
from .arguments import MIN_SIDE, ExportOptions

# The scan of a graph of free size holds for so many cells of 16x16 pixels;
# sides are rounded up to them.
MAX_PIXELS = MAX_TOKENS * 16**2 // 2


class Preprocess(nn.Module):
    """What a host's data preprocessor does, in the network's channels."""

    def __init__(self, mean, std, swap_channels: bool, pad_divisor: int = 1):
        super().__init__()
        self.swap = swap_channels
        mean, std = (
            None if values is None else torch.tensor(values).view(1, -1, 1, 1)
            for values in (mean, std)
        )
        self.register_buffer('mean', mean)
        self.register_buffer('scale', None if std is None else 1 / std)

    def forward(self, image: Tensor) -> Tensor:
        """Map pixels (batch, channels, H, W), uint8, to float32."""
        x = image.float()
        # The hosts swap the channels of colour images only.
        if self.swap and int(x.shape[1]) == 3:
            x = torch.cat(x.split(1, dim=1)[::-1], dim=1)
        return x if self.mean is None else (x - self.mean) * self.scale


def preprocess_settings(model: nn.Module) -> dict:
    """Read a model's data preprocessor as arguments of Preprocess."""
    source = model.data_preprocessor
    normalize = getattr(source, '_enable_normalize', False)
    swap = any(
        getattr(source, name, False)
        # one name each in MMDetection, MMSegmentation and MMPretrain
        for name in ('_channel_conversion', 'channel_conversion', 'to_rgb')
    )
    return dict(
        mean=source.mean.flatten().tolist() if normalize else None,
        std=source.std.flatten().tolist() if normalize else None,
        swap_channels=bool(swap),
        pad_divisor=int(getattr(source, 'pad_size_divisor', None) or 1),
    )


class Network(nn.Module):
    """A model of a host library with one image in."""

    output_names: tuple[str, ...]
    # What is traced behind the outputs to have a name, and left within.
    inner_names: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, options: ExportOptions):
        super().__init__()
        self.settings = preprocess_settings(model)
        self.preprocess = nn.Identity()
        if options.preprocess:
            self.preprocess = Preprocess(**self.settings)
        _replace_layers(model)
        self.model, self.options = model, options

    def size_of(self, image: Tensor) -> tuple:
        """Return height and width, as numbers where they are fixed."""
        free = self.options.dynamic_size
        return tuple(n if free else int(n) for n in image.shape[2:])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map images (batch, channels, H, W) to the named outputs."""
        return self.compute(self.preprocess(image))


class Backbone(Network):
    """The maps of the stages, finest first."""

    def __init__(self, model: nn.Module, options: ExportOptions):
        super().__init__(model, options)
        count = len(model.backbone.out_indices)
        self.output_names = tuple(f'map{i}' for i in range(count))

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.backbone(x))


class Classifier(Network):
    """Probabilities of the classes, (batch, classes)."""

    output_names = ('scores',)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        # Networks of timm as a whole have no head of MMPretrain's.
        return (torch.softmax(self.model(x, mode='tensor'), dim=1),)


class Segmentor(Network):
    """Scores before softmax, (batch, classes, H, W) of the image's size."""

    output_names = ('logits',)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        logits = self.model.decode_head.forward(self.model.extract_feat(x))
        return (
            F.interpolate(
                logits,
                size=self.size_of(x),
                mode='bilinear',
                align_corners=self.model.align_corners,
            ),
        )


def describe(model: nn.Module, kind: str, options: ExportOptions) -> dict:
    """Collect what a runtime has to know of a network, as JSON holds it."""
    meta = getattr(model, 'dataset_meta', None) or {}
    palette = meta.get('palette')
    metadata = dict(
        kind=kind,
        size=None if options.dynamic_size else list(options.size),
        batch=None if options.dynamic_batch else 1,
        channels=input_channels(getattr(model, 'backbone', model)),
        min_size=MIN_SIDE,
        max_pixels=MAX_PIXELS if options.dynamic_size else None,
        preprocess=options.preprocess,
        normalize=preprocess_settings(model),
        classes=list(meta.get('classes') or ()) or None,
        # MMDetection's may be a name
        palette=[[int(value) for value in colour] for colour in palette]
        if isinstance(palette, (list, tuple))
        else None,
        traced_size=list(options.size),
        precision='float32',
    )
    if kind == 'detector' and model.with_mask:
        metadata['mask_threshold'] = model.roi_head.test_cfg.mask_thr_binary
    if kind == 'segmentor':
        metadata['align_corners'] = model.align_corners
        metadata['threshold'] = getattr(model.decode_head, 'threshold', None)
        metadata['num_outputs'] = model.out_channels
    return metadata


def build_network(
    model: nn.Module, kind: str, options: ExportOptions
) -> Network:
    """Return a copy of a model, fused, in the form in which it is traced."""
    model = deepcopy(model)
    backbone = getattr(model, 'backbone', None)
    if kind == 'backbone' and backbone is None:
        raise ValueError(f'{type(model).__name__} has no backbone to export.')
    if hasattr(backbone, 'switch_to_deploy'):
        backbone.switch_to_deploy()
    kinds = dict(backbone=Backbone, classifier=Classifier, segmentor=Segmentor)
    if kind == 'detector':
        # Imports MMDetection, which the others do without.
        from .detectors import Detector

        kinds[kind] = Detector
    return kinds[kind](model, options).eval().requires_grad_(False)


class MatrixPool(nn.Module):
    """AdaptiveAvgPool2d that ONNX holds where a size is no multiple."""

    def __init__(self, output_size):
        super().__init__()
        self.output_size = _pair(output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to (batch, channels, *output_size)."""
        rows = _shares(x.shape[2], self.output_size[0])
        columns = _shares(x.shape[3], self.output_size[1])
        return rows @ x @ columns.t()


def _shares(size, bins: int) -> Tensor:
    """Return (bins, size): the share of every pixel in every mean."""
    pixel, bin_ = torch.arange(size), torch.arange(bins)[:, None]
    # from floor(bin * size / bins) to below ceil((bin + 1) * size / bins)
    within = pixel >= torch.div(bin_ * size, bins, rounding_mode='trunc')
    within = (within & (pixel * bins < (bin_ + 1) * size)).float()
    return within / within.sum(1, keepdim=True)


def _replace_layers(module: nn.Module) -> None:
    """Replace layers that a tracer cannot follow at every size, in place."""
    for name, child in module.named_children():
        # By name, as the library may be absent.
        kind = f'{type(child).__module__}.{type(child).__name__}'
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = _pair(child.output_size)
            # ONNX has an operator for the mean of a whole map.
            if size != (1, 1) and None not in size:
                setattr(module, name, MatrixPool(size))
        elif kind == 'mmseg.models.utils.wrappers.Upsample':
            # It computes the size in Python, which stays the traced one.
            layer = nn.Upsample(
                child.size, child.scale_factor, child.mode, child.align_corners
            )
            setattr(module, name, layer)
        else:
            _replace_layers(child)

"""Models of the hosts as networks with one image in and named tensors out."""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ..apis.input_size import input_channels
from ..ops.scan_pytorch import MAX_TOKENS
from .arguments import MIN_SIDE, ExportOptions

# The scan of a graph of free size holds for so many cells of 16x16 pixels;
# sides are rounded up to them.
MAX_PIXELS = MAX_TOKENS * 16**2 // 2


@dataclass
class Comparison:
    """What a comparison of one batch of images found."""

    image: str
    size: tuple[int, int]
    tolerance: float
    got: dict[str, np.ndarray]  # what the file gives, by name
    error: float = 0.0
    boxes: int | None = None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = '' if self.boxes is None else f', {self.boxes} boxes'
        text = f'{self.image} {self.size[0]}x{self.size[1]}: relative error '
        return '; '.join([f'{text}{self.error:.1e}{found}', *self.problems])

    def add(self, name: str, wanted: Tensor) -> None:
        """Compare a tensor of the file with the model's."""
        error = relative_error(self.got[name], wanted.numpy())
        self.error = max(self.error, error)
        if not error <= self.tolerance:
            self.problems.append(f'{name} differs by {error:.1e}')


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference over the largest value, or infinity."""
    if got.shape != wanted.shape:
        return float('inf')
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12)
    return float(error) if np.isfinite(error) else float('inf')


class Preprocess(nn.Module):
    """What a host's data preprocessor does, in the network's channels."""

    def __init__(self, mean, std, swap_channels: bool, pad_divisor: int = 1):
        super().__init__()
        self.swap = swap_channels
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer('scale', 1 / torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map pixels (batch, channels, H, W), uint8, to float32."""
        x = image.float()
        # The hosts swap the channels of colour images only.
        if self.swap and int(x.shape[1]) == 3:
            x = torch.cat(x.split(1, dim=1)[::-1], dim=1)
        return (x - self.mean) * self.scale


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
        mean=source.mean.flatten().tolist() if normalize else [0.0],
        std=source.std.flatten().tolist() if normalize else [1.0],
        swap_channels=bool(swap),
        pad_divisor=int(getattr(source, 'pad_size_divisor', None) or 1),
    )


class Network(nn.Module):
    """A fused copy of a host's model, in the form in which it is traced.

    ``compute`` maps what goes into the copy, or into the original.
    """

    def __init__(self, model: nn.Module, options: ExportOptions):
        super().__init__()
        self.options, self.settings = options, preprocess_settings(model)
        self.preprocess = nn.Identity()
        if options.preprocess:
            self.preprocess = Preprocess(**self.settings)
        self.model = deepcopy(model)
        backbone = getattr(self.model, 'backbone', None)
        if hasattr(backbone, 'switch_to_deploy'):
            backbone.switch_to_deploy()
        _replace_layers(self.model)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map images (batch, channels, H, W) to the outputs by name.

        Names that begin with ``_`` are compared, and no outputs of the file.
        """
        return self.compute(self.model, self.preprocess(image))

    def size_of(self, image: Tensor) -> tuple:
        """Return height and width, as numbers where they are fixed."""
        free = self.options.dynamic_size
        return tuple(n if free else int(n) for n in image.shape[2:])

    @torch.no_grad()
    def compare(self, model: nn.Module, x: Tensor, result: Comparison) -> None:
        """Compare what the file gives with the original model."""
        for name, value in self.compute(model, x).items():
            result.add(name, value)


class Backbone(Network):
    """The maps of the stages, finest first."""

    def compute(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        return {f'map{i}': y for i, y in enumerate(model.backbone(x))}


class Classifier(Network):
    """Probabilities of the classes, (batch, classes)."""

    def compute(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        from mmpretrain.models.heads import MultiLabelClsHead

        scores = model(x, mode='tensor')
        # Networks of timm as a whole have no head of MMPretrain's.
        if isinstance(getattr(model, 'head', None), MultiLabelClsHead):
            return dict(scores=scores.sigmoid())
        return dict(scores=scores.softmax(dim=1))

    @torch.no_grad()
    def compare(self, model: nn.Module, x: Tensor, result: Comparison) -> None:
        found = model(x, mode='predict')
        result.add('scores', torch.stack([y.pred_score for y in found]))


class Segmentor(Network):
    """Scores before softmax, (batch, classes, H, W) of the image's size."""

    def compute(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        meta = dict(img_shape=self.size_of(x))
        return dict(logits=model.encode_decode(x, [meta]))


def build_network(
    model: nn.Module, kind: str, options: ExportOptions
) -> Network:
    """Return the network of a kind; see :func:`export_model`."""
    if kind == 'detector':
        # Imports MMDetection, which the others do without.
        from .detectors import Detector

        return Detector(model, options)
    kinds = dict(backbone=Backbone, classifier=Classifier, segmentor=Segmentor)
    return kinds[kind](model, options)


def describe(model: nn.Module, kind: str, options: ExportOptions) -> dict:
    """Collect what a runtime has to know of a network, as JSON holds it."""
    meta = getattr(model, 'dataset_meta', None) or {}
    palette = meta.get('palette')
    if isinstance(palette, str):  # one of MMDetection's own
        palette = None
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
        palette=palette and np.array(palette).tolist(),
        traced_size=list(options.size),
        precision=options.precision,
    )
    if hasattr(model, 'roi_head') and model.with_mask:
        metadata['mask_threshold'] = model.roi_head.test_cfg.mask_thr_binary
    if kind == 'segmentor':
        metadata['align_corners'] = model.align_corners
        metadata['threshold'] = getattr(model.decode_head, 'threshold', None)
        metadata['num_outputs'] = model.out_channels
    return metadata


def _matrix_pool(output_size: tuple[int, int], x: Tensor) -> Tensor:
    """Average as AdaptiveAvgPool2d, in ONNX for any (B, C, H, W) as well."""
    rows = _shares(x.shape[2], output_size[0])
    columns = _shares(x.shape[3], output_size[1])
    return rows @ x @ columns.t()


def _shares(size, bins: int) -> Tensor:
    """Return (bins, size): the share of every pixel in every mean."""
    pixel, bin_ = torch.arange(size), torch.arange(bins)[:, None]
    # from floor(bin * size / bins) to below ceil((bin + 1) * size / bins)
    within = pixel >= torch.div(bin_ * size, bins, rounding_mode='trunc')
    within = (within & (pixel * bins < (bin_ + 1) * size)).float()
    return within / within.sum(1, keepdim=True)


def _replace_layers(model: nn.Module) -> None:
    """Replace what a tracer cannot follow at every size, in place."""
    for layer in model.modules():
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            size = _pair(layer.output_size)
            # ONNX has an operator for the mean of a whole map.
            if size != (1, 1) and None not in size:
                layer.forward = partial(_matrix_pool, size)
        elif type(layer).__name__ == 'Upsample':
            # MMSegmentation's computes the size in Python.
            names = ('size', 'scale_factor', 'mode', 'align_corners')
            settings = {name: getattr(layer, name) for name in names}
            layer.forward = partial(F.interpolate, **settings)

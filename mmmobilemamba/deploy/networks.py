"""Models of the hosts as networks with one image in and named tensors out."""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import MAX_TOKENS
from .layers import replace_layers
from .options import MIN_SIDE, ExportOptions

# The scan of a graph of free size holds for so many cells of 16x16 pixels,
# less those that the sides are rounded up by.
MAX_PIXELS = MAX_TOKENS * 16**2 // 2


class Preprocess(nn.Module):
    """What a host's data preprocessor does to one image.

    Args:
        mean (list[float], optional): In the network's order of channels;
            None normalises nothing.
        std (list[float], optional): As ``mean``.
        swap_channels (bool): Swap blue and red.
        pad_divisor (int): Not done here.
    """

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
    """Read a model's data preprocessor as arguments of :class:`Preprocess`."""
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
    """A model of a host library with one image in.

    Args:
        model (nn.Module): Model in evaluation mode.
        preprocess (nn.Module): What comes before it.
        fixed_size (bool): The size of the image is known while tracing.
    """

    output_names: tuple[str, ...]
    # per output, what the dimensions behind the first are called if free
    dynamic: tuple[dict[int, str], ...]
    # What is traced behind the outputs to have a name, and left within.
    inner_names: tuple[str, ...] = ()

    def __init__(
        self, model: nn.Module, preprocess: nn.Module, fixed_size: bool
    ):
        super().__init__()
        replace_layers(model)
        self.model, self.preprocess = model, preprocess
        self.fixed_size = fixed_size

    def size_of(self, image: Tensor) -> Sequence:
        """Return height and width, as numbers where they are fixed."""
        size = image.shape[2:]
        return tuple(map(int, size)) if self.fixed_size else size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map images (batch, channels, H, W) to the named outputs."""
        return self.compute(self.preprocess(image))


class Backbone(Network):
    """The maps of the stages, finest first."""

    def __init__(self, model: nn.Module, *args):
        super().__init__(model, *args)
        count = len(model.backbone.out_indices)
        self.output_names = tuple(f'map{i}' for i in range(count))
        self.dynamic = tuple(
            {2: f'height{i}', 3: f'width{i}'} for i in range(count)
        )

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.backbone(x))


class Classifier(Network):
    """Probabilities of the classes, (batch, classes)."""

    output_names = ('scores',)
    dynamic = ({},)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        # Networks of timm as a whole have no head of MMPretrain's.
        logits = self.model(x, mode='tensor')
        return (torch.softmax(logits, dim=1),)


class Segmentor(Network):
    """Scores before softmax at the image's size, or the best class.

    Args:
        argmax (bool): Give labels (batch, H, W), uint8 up to 256 classes,
            int32 above, instead of scores (batch, classes, H, W). Defaults
            to False.
    """

    def __init__(self, *args, argmax: bool = False):
        super().__init__(*args)
        self.argmax = argmax
        self.output_names = ('labels',) if argmax else ('logits',)
        first = 1 if argmax else 2
        self.dynamic = ({first: 'height', first + 1: 'width'},)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        logits = model.decode_head.forward(model.extract_feat(x))
        logits = F.interpolate(
            logits,
            size=self.size_of(x),
            mode='bilinear',
            align_corners=model.align_corners,
        )
        if not self.argmax:
            return (logits,)
        if logits.shape[1] == 1:
            threshold = model.decode_head.threshold
            labels = torch.sigmoid(logits[:, 0]) > threshold
        else:
            labels = logits.argmax(dim=1)
        small = logits.shape[1] <= 256
        return (labels.to(torch.uint8 if small else torch.int32),)


def channels_of(model: nn.Module) -> int:
    """Return the channels that the first convolution of a model takes."""
    model = getattr(model, 'backbone', model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def describe(model: nn.Module, kind: str, options: ExportOptions) -> dict:
    """Collect what a runtime has to know of a network.

    Args:
        model (nn.Module): Model of a host library.
        kind (str): Its kind.
        options (ExportOptions): How it is exported; ``size`` is given.

    Returns:
        dict: What JSON can hold.
    """
    meta = getattr(model, 'dataset_meta', None) or {}
    metadata = dict(
        kind=kind,
        size=None if options.dynamic_size else list(options.size),
        batch=None if options.dynamic_batch else options.batch,
        channels=channels_of(model),
        min_size=MIN_SIDE,
        max_pixels=MAX_PIXELS if options.dynamic_size else None,
        preprocess=options.preprocess,
        normalize=preprocess_settings(model),
        classes=list(meta.get('classes') or ()) or None,
        palette=None,
        traced_size=list(options.size),
        precision='float32',
    )
    palette = meta.get('palette')
    if isinstance(palette, (list, tuple)):  # MMDetection's may be a name
        metadata['palette'] = [list(map(int, colour)) for colour in palette]
    if kind == 'detector' and model.with_mask:
        metadata['mask_threshold'] = model.roi_head.test_cfg.mask_thr_binary
    if kind == 'segmentor':
        metadata['align_corners'] = model.align_corners
        metadata['threshold'] = getattr(model.decode_head, 'threshold', None)
        metadata['num_outputs'] = model.out_channels
    return metadata


def build_network(
    model: nn.Module, kind: str, options: ExportOptions, metadata: dict
) -> Network:
    """Return a copy of a model in the form in which it is traced.

    Args:
        model (nn.Module): Model of a host library in evaluation mode.
        kind (str): ``'backbone'``, ``'classifier'``, ``'segmentor'`` or
            ``'detector'``.
        options (ExportOptions): How it is exported.
        metadata (dict): Of :func:`describe`.

    Returns:
        Network: The network, fused, with no gradients.

    Raises:
        ValueError: The model is of a kind that cannot be exported.
    """
    model = deepcopy(model)
    backbone = getattr(model, 'backbone', None)
    if kind == 'backbone' and backbone is None:
        raise ValueError(
            f'{type(model).__name__} has no backbone to export by itself.'
        )
    if hasattr(backbone, 'switch_to_deploy'):
        backbone.switch_to_deploy()
    preprocess: nn.Module = nn.Identity()
    if options.preprocess:
        preprocess = Preprocess(**metadata['normalize'])
    common = (model, preprocess, not options.dynamic_size)
    if kind == 'backbone':
        network: Network = Backbone(*common)
    elif kind == 'classifier':
        network = Classifier(*common)
    elif kind == 'segmentor':
        network = Segmentor(*common, argmax=options.argmax)
    else:
        # Imports MMDetection, which the others do without.
        from .detectors import wrap_detector

        network = wrap_detector(*common, fixed_count=options.fixed_count)
    return network.eval().requires_grad_(False)

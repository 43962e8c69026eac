"""Networks with one picture in and named tensors out, ready to trace."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import replace_layers

KINDS = ('backbone', 'classifier', 'segmentor', 'detector')
# Names within the graph of a two-stage detector, which are no outputs.
PROPOSALS = ('proposals', 'proposal_scores', 'proposal_levels')


class Preprocess(nn.Module):
    """What a host's data preprocessor does to one picture.

    Args:
        settings (dict): ``mean`` and ``std`` in the network's channel order,
            or None, and ``swap_channels``, of :func:`preprocess_settings`.
    """

    def __init__(self, settings: dict):
        super().__init__()
        self.swap = settings['swap_channels']
        self.normalize = settings['mean'] is not None
        if self.normalize:
            mean, std = (
                torch.tensor(settings[key]).view(1, -1, 1, 1)
                for key in ('mean', 'std')
            )
            self.register_buffer('mean', mean)
            self.register_buffer('scale', 1 / std)

    def forward(self, image: Tensor) -> Tensor:
        """Map pixels (batch, channels, H, W), uint8, to float32."""
        x = image.float()
        if self.swap:
            x = torch.cat(x.split(1, dim=1)[::-1], dim=1)
        return (x - self.mean) * self.scale if self.normalize else x


def preprocess_settings(model: nn.Module) -> dict:
    """Read mean, std and channel order from a host's data preprocessor.

    Args:
        model (nn.Module): Model of one of the three libraries.

    Returns:
        dict: ``mean`` and ``std`` (list[float] or None), ``swap_channels``
        (bool) and ``pad_divisor`` (int), as JSON holds them.
    """
    source = model.data_preprocessor
    normalize = getattr(source, '_enable_normalize', False)
    swap = any(
        getattr(source, name, False)
        # one name each in MMDetection, MMSegmentation and MMPretrain
        for name in ('_channel_conversion', 'channel_conversion', 'to_rgb')
    )
    divisor = getattr(source, 'pad_size_divisor', None) or 1
    return dict(
        mean=source.mean.flatten().tolist() if normalize else None,
        std=source.std.flatten().tolist() if normalize else None,
        swap_channels=bool(swap),
        pad_divisor=int(divisor),
    )


class Network(nn.Module):
    """A model of a host library with one picture in.

    Args:
        model (nn.Module): Model in evaluation mode.
        preprocess (nn.Module): What comes before it.
        fixed_size (bool): The size of the picture is known while tracing.
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
        replace_layers(model, fixed_size)
        self.model, self.preprocess = model, preprocess
        self.fixed_size = fixed_size

    def size_of(self, image: Tensor) -> Sequence:
        """Return height and width, as numbers where they are fixed."""
        size = image.shape[2:]
        return tuple(map(int, size)) if self.fixed_size else size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map pictures (batch, channels, H, W) to the named outputs."""
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
    """Scores before softmax at the picture's size, or the best class.

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

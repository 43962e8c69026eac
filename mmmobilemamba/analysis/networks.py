"""Networks by name: one grammar and one builder for all tools.

A name is ``KIND:NETWORK@SIZE=CHECKPOINT,KEY=VALUE,...``, of which KIND may be
left out of our variants, of timm's names and of paths:
``mobilemamba:b1@256``, ``timm:shvit_s4``, ``mambaout:femto``,
``host:resnet18``, ``config.py=epoch_12.pth``, ``network.onnx@224x320``.
"""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..apis.config import load_config
from ..apis.inference import build_model, load_model, read_image
from ..apis.input_size import input_channels, usual_size
from ..checkpoints.checkpoint import check_checkpoint_file
from ..models.backbones import MobileMamba

KINDS = ('mobilemamba', 'timm', 'mambaout', 'host', 'config', 'onnx')
HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
# Our variants and the side of the images that each is published for.
SIDES = dict(t2=192, t4=192, s6=224, b1=256, b2=384, b4=512)
HOST_BACKBONES = {
    'resnet18': dict(type='ResNet', depth=18, norm_eval=False),
    'mobilenet_v2': dict(type='MobileNetV2', out_indices=(1, 2, 4, 6)),
}
# Of RGB pixels, on ImageNet.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SUFFIXES = {'.py': 'config', '.onnx': 'onnx'}


@dataclass(frozen=True)
class NetworkSpec:
    """A network that was asked for; nothing is built."""

    text: str  # what the user wrote
    kind: str  # one of KINDS, 'timm' for MambaOut
    network: str  # name or path within the kind
    size: tuple[int, int] | None = None  # height and width in pixels
    checkpoint: str | None = None
    options: dict[str, str] = field(default_factory=dict)  # behind commas

    @property
    def weights(self) -> str:
        """``'random weights'``, or the name of the checkpoint."""
        return os.path.basename(self.checkpoint or '') or 'random weights'

    @property
    def label(self) -> str:
        """Name for tables and figures."""
        name = Path(self.network).stem
        name = f'MobileMamba-{name.upper()}' if name in SIDES else name
        return f'{name} ({self.weights})' if self.checkpoint else name


class _Classifier(nn.Module):
    """A backbone with a linear classifier of 1000 classes."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        backbone.eval()  # by itself, as the hosts' train() returns None
        with torch.no_grad():
            channels = backbone(torch.zeros(1, 3, 64, 64))[-1].shape[1]
        # The published head has a norm.
        ours = isinstance(backbone, MobileMamba)
        self.bn = nn.BatchNorm1d(channels) if ours else nn.Identity()
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.backbone(x)[-1].mean((2, 3))))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the names most like a wrong one, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f' Did you mean {", ".join(near)}?' if near else ''


def parse_network(text: str) -> NetworkSpec:
    """Read a name, as this module describes it.

    Raises ValueError for a text that is no such name, or names no network,
    and FileNotFoundError for a checkpoint that is not there.
    """
    name, *options = text.split(',')
    name, _, checkpoint = name.partition('=')
    found = re.fullmatch(r'(.*?)(?:@([1-9]\d*)(?:x([1-9]\d*))?)?', name)
    name, high, wide = found.groups()
    kind, colon, network = name.partition(':')
    if not colon:
        kind, network = _SUFFIXES.get(Path(name).suffix, 'timm'), name
        kind = 'mobilemamba' if name in SIDES else kind
    if kind not in KINDS or not network or '@' in os.path.basename(name):
        raise ValueError(
            f'{text} names no network. Write KIND:NETWORK@HEIGHTxWIDTH, as in '
            'mobilemamba:b1@256, or the path of a config; kinds are '
            f'{", ".join(KINDS)}.'
        )
    if kind == 'mambaout':
        kind, network = 'timm', f'mambaout_{network}'
    known = dict(mobilemamba=SIDES, host=HOST_BACKBONES).get(kind, [network])
    if kind == 'timm':
        import timm  # only where it is asked for

        known = known if timm.is_model(network) else timm.list_models()
    if network not in known:
        hint = did_you_mean(network, known)
        if kind != 'timm':
            hint = f' There are {", ".join(known)}.'
        raise ValueError(f'{text}: {kind} has no network {network!r}.{hint}')
    if checkpoint:
        check_checkpoint_file(checkpoint)
    if not all('=' in option for option in options):
        raise ValueError(f'{text}: options are written KEY=VALUE.')
    size = (int(high), int(wide or high)) if high else None
    read = dict(option.split('=', 1) for option in options)
    return NetworkSpec(text, kind, network, size, checkpoint or None, read)


def backbone_config(spec: NetworkSpec) -> dict:
    """Return the config of a backbone by name for any host's registry."""
    name = spec.network
    kinds = dict(
        mobilemamba=dict(type='mmmobilemamba.MobileMamba', arch=name),
        timm=dict(type='mmmobilemamba.TIMMBackbone', model_name=name),
        host=HOST_BACKBONES.get(name),
    )
    if spec.kind not in kinds:
        raise ValueError(f'{spec.text} is no backbone by name.')
    config = dict(kinds[spec.kind])
    if spec.checkpoint:
        init_cfg = dict(type='Pretrained', checkpoint=spec.checkpoint)
        config['init_cfg'] = init_cfg
    return config


def build_network(
    spec: NetworkSpec, features: bool = False
) -> tuple[nn.Module, tuple[int, int]]:
    """Build a network with random weights, or those of its checkpoint.

    Args:
        spec (NetworkSpec): Any kind but an exported file.
        features (bool): Build the part that maps images to a tuple of maps,
            the backbone of a config. Defaults to False, the whole model; a
            backbone alone gets a linear classifier.

    Returns:
        tuple[nn.Module, tuple[int, int]]: The network in evaluation mode, on
        the CPU, and height and width of its images.

    Raises:
        ValueError: The weights do not fit, or the model has no backbone.
    """
    torch.manual_seed(0)
    side = SIDES.get(spec.network, 224)
    size = (side, side)
    if spec.kind == 'config':
        cfg = load_config(spec.network)
        size = usual_size(cfg)
        if 'test_dataloader' in cfg:  # with the names of the classes
            module = load_model(cfg, spec.checkpoint, 'cpu')
        else:
            module = build_model(cfg)
        module = getattr(module, 'backbone', None) if features else module
    elif spec.kind == 'timm' and not features:
        module, size = _from_timm(spec)
    else:
        host = next((name for name in HOSTS if find_spec(name)), None)
        with DefaultScope.overwrite_default_scope(host):
            module = MODELS.build(backbone_config(spec))
        if spec.checkpoint:
            module.init_weights()  # reads the file
        module = module if features else _Classifier(module)
    if module is None or (spec.checkpoint and type(module) is _Classifier):
        raise ValueError(
            f'{spec.text}: no backbone, or no trained head; the weights of a '
            'whole network come by its config.'
        )
    module.eval()
    return module, spec.size or size


def _from_timm(spec: NetworkSpec) -> tuple[nn.Module, tuple[int, int]]:
    import timm  # only where it is asked for

    cfg = timm.get_pretrained_cfg(spec.network)
    size = tuple(cfg.input_size[1:]) if cfg else (224, 224)
    more = {}
    # Networks of one size hold tables for it; the rest take any image.
    if cfg and cfg.fixed_input_size and spec.size not in (None, size):
        more['img_size'] = spec.size
    path = spec.checkpoint or ''
    return timm.create_model(spec.network, checkpoint_path=path, **more), size


def random_images(
    module: nn.Module, batch: int, size: tuple[int, int]
) -> Tensor:
    """Return noise for a network, (batch, channels, H, W), always the same."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, input_channels(module), *size)
    return torch.randn(shape, generator=generator)


def read_rgb(path: str | os.PathLike, size: tuple[int, int]) -> Tensor:
    """Return the centre of an RGB image, resized to a height and width and
    normalised as networks for ImageNet expect it, (1, 3, H, W)."""
    image = read_image(path)
    scale = max(n / m for n, m in zip(size, image.shape))
    image = cv2.resize(image, None, fx=scale, fy=scale)
    top, left = ((m - n) // 2 for n, m in zip(size, image.shape))
    image = image[top : top + size[0], left : left + size[1], ::-1]
    image = ((image - MEAN) / STD).astype(np.float32)
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def host_of(model: nn.Module) -> str | None:
    """Return the library of :data:`HOSTS` that a model's class is from."""
    packages = (k.__module__.partition('.')[0] for k in type(model).__mro__)
    return next((name for name in packages if name in HOSTS), None)

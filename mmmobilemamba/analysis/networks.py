"""Networks by name: one grammar and one builder for all tools.

A name is ``KIND:NETWORK@SIZE=CHECKPOINT,KEY=VALUE,...``, of which KIND may be
left out of our variants, of timm's names and of paths:
``mobilemamba:b1@256``, ``timm:shvit_s4``, ``mambaout:femto``,
``host:resnet18``, ``config.py=epoch_12.pth``, ``network.onnx@224x320``.
"""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..apis.config import load_config, scope_of
from ..apis.inference import build_model, load_model, read_image
from ..apis.input_size import input_channels, usual_size
from ..checkpoints.checkpoint import (
    check_checkpoint_file,
    load_checkpoint,
    load_weights,
    read_state_dict,
)
from ..models.backbones import MobileMamba
from ..models.backbones.feature_backbone import FeatureBackbone

KINDS = ('mobilemamba', 'timm', 'mambaout', 'host', 'config', 'onnx')
HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
# Our variants and the side of the images that each is published for.
SIDES = dict(t2=192, t4=192, s6=224, b1=256, b2=384, b4=512)
HOST_BACKBONES = {
    'resnet18': dict(type='ResNet', depth=18, norm_eval=False),
    'mobilenet_v2': dict(type='MobileNetV2', out_indices=(1, 2, 4, 6)),
}
# Side of an image, a power of two with room for a stride of 64.
_PROBE = 128
# Of RGB pixels, on ImageNet.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_KIND_OF_SUFFIX = {'.py': 'config', '.onnx': 'onnx'}


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
        """Name for tables and figures, without the weights."""
        name = Path(self.network).stem
        return f'MobileMamba-{name.upper()}' if name in SIDES else name


class _Classifier(nn.Module):
    """A backbone with a linear classifier of 1000 classes."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        width = measure_maps(backbone)[0][-1]
        # The published head has a norm.
        ours = isinstance(backbone, MobileMamba)
        self.bn = nn.BatchNorm1d(width) if ours else nn.Identity()
        self.fc = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.backbone(x)[-1].mean((2, 3))))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the names most like a wrong one, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f' Did you mean {", ".join(near)}?' if near else ''


def parse_network(
    text: str, takes: Sequence[str] = ('size', 'options')
) -> NetworkSpec:
    """Read a name, as this module describes it, or raise ValueError, also
    for what the caller would not heed, and FileNotFoundError for a checkpoint
    that is not there."""
    name, *options = text.split(',')
    name, _, checkpoint = name.partition('=')
    found = re.fullmatch(r'(.*?)(?:@([1-9]\d*)(?:x([1-9]\d*))?)?', name)
    name, high, wide = found.groups()
    kind, _, network = name.rpartition(':')
    if not kind:
        kind = _KIND_OF_SUFFIX.get(Path(name).suffix, 'timm')
        kind = 'mobilemamba' if name in SIDES else kind
    if kind not in KINDS or not network or '@' in os.path.basename(name):
        raise ValueError(
            f'{text} names no network. Write KIND:NETWORK@HEIGHTxWIDTH or '
            f'the path of a config; kinds are {", ".join(KINDS)}.'
        )
    if kind == 'mambaout':
        kind, network = 'timm', f'mambaout_{network}'
    known = dict(mobilemamba=SIDES, host=HOST_BACKBONES).get(kind, [network])
    if kind == 'timm':
        import timm  # only where it is asked for

        known = known if timm.is_model(network) else timm.list_models()
    if network not in known:
        hint = did_you_mean(network, known)
        raise ValueError(f'{text}: {kind} has no network {network!r}.{hint}')
    if checkpoint:
        check_checkpoint_file(checkpoint)
    size = (int(high), int(wide or high)) if high else None
    for key, value in dict(size=size, options=options).items():
        if value and key not in takes:
            raise ValueError(f'{text}: no {key} can be said here.')
    read = dict(option.partition('=')[::2] for option in options)
    return NetworkSpec(text, kind, network, size, checkpoint or None, read)


def backbone_config(spec: NetworkSpec) -> dict:
    """Return the config of a backbone by name for any host's registry."""
    name = spec.network
    configs = dict(
        mobilemamba=dict(type='mmmobilemamba.MobileMamba', arch=name),
        timm=dict(type='mmmobilemamba.TIMMBackbone', model_name=name),
        host=dict(HOST_BACKBONES.get(name, {})),
    )
    if spec.kind not in configs:
        raise ValueError(f'{spec.text} is no backbone by name.')
    config, path = configs[spec.kind], spec.checkpoint
    if path:
        config['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    return config


def build_backbone(config: dict, scope: str | None) -> nn.Module:
    """Build a backbone in evaluation mode, with the weights of its config;
    raise ValueError where they do not fit, of which mmengine says nothing.
    The classifier of a file may be left over."""
    with DefaultScope.overwrite_default_scope(scope):
        module = revert_sync_batchnorm(MODELS.build(dict(config)))
    module.eval()  # by itself: train() of some of the hosts' returns None
    init_cfg = config.get('init_cfg')
    if init_cfg and isinstance(module, FeatureBackbone):
        module.init_weights()  # ours check by themselves
    elif init_cfg:
        path, wanted = init_cfg['checkpoint'], module.state_dict()
        tensors = read_state_dict(path)
        fitting = {k: v for k, v in tensors.items() if k in wanted}
        load_weights(module, fitting, path)
    return module


@torch.no_grad()
def measure_maps(backbone: nn.Module) -> tuple[list[int], list[int]]:
    """Return channels and strides in pixels of a backbone's maps."""
    maps = backbone(torch.zeros(1, input_channels(backbone), _PROBE, _PROBE))
    return [m.shape[1] for m in maps], [_PROBE // m.shape[3] for m in maps]


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
    size = (SIDES.get(spec.network, 224),) * 2
    if spec.kind == 'config':
        cfg = load_config(spec.network)
        size = usual_size(cfg)
        if 'test_dataloader' in cfg:  # with the names of the classes
            module = load_model(cfg, spec.checkpoint, 'cpu')
        else:
            module = build_model(cfg)
            if spec.checkpoint:
                load_checkpoint(module, spec.checkpoint)
        module = getattr(module, 'backbone', None) if features else module
    elif spec.kind == 'timm' and not features:
        import timm  # only where it is asked for

        cfg = timm.get_pretrained_cfg(spec.network)
        size, path, more = cfg.input_size[1:], spec.checkpoint or '', {}
        # Networks of one size hold tables for it; the rest take any image.
        if cfg.fixed_input_size and spec.size:
            more['img_size'] = spec.size
        module = timm.create_model(spec.network, checkpoint_path=path, **more)
    else:
        host = next((name for name in HOSTS if find_spec(name)), None)
        module = build_backbone(backbone_config(spec), host)
        if not features:
            module = None if spec.checkpoint else _Classifier(module)
    if module is None:
        raise ValueError(
            f'{spec.text}: no backbone, or no trained head; the weights of a '
            'whole network come by its config.'
        )
    module.eval()
    return module, spec.size or size


def random_images(channels: int, batch: int, size: Sequence[int]) -> Tensor:
    """Return noise, (batch, channels, H, W), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *size, generator=generator)


def read_rgb(path: str | os.PathLike, size: tuple[int, int]) -> Tensor:
    """Return the centre of an RGB image, resized to a height and width and
    normalised as networks for ImageNet expect it, (1, 3, H, W)."""
    pixels = cv2.dnn.blobFromImage(
        read_image(path), size=size[::-1], mean=MEAN, swapRB=True, crop=True
    )
    return torch.from_numpy(pixels / np.float32(STD).reshape(3, 1, 1))


def host_of(model: nn.Module) -> str | None:
    """Return the host library that a model's class is from."""
    return scope_of(type(model))

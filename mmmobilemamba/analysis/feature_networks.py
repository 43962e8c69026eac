"""Building networks for their feature maps."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..apis.config import load_config
from ..apis.inference import build_model, load_model
from ..checkpoints.checkpoint import check_checkpoint_file
from ..models.backbones import MobileMamba, TIMMBackbone
from .receptive_field import wake_branches


@dataclass
class FeatureNetwork:
    """A network that gives feature maps.

    Attributes:
        name (str): Name for a figure.
        module (nn.Module): Network in evaluation mode, which maps pictures
            to a tuple of maps.
        weights (str): ``'random weights'``, or the name of the checkpoint.
    """

    name: str
    module: Callable[[Tensor], Sequence[Tensor]]
    weights: str


def build_feature_network(
    text: str, device: str | torch.device = 'cpu'
) -> FeatureNetwork:
    """Build a network from its name.

    Args:
        text (str): ``mobilemamba:ARCH``, ``timm:NAME`` or a config file of
            any of the libraries, of whose model the backbone is taken; then
            ``=CHECKPOINT`` for a file of weights.
        device (str or torch.device): Where it goes. Defaults to ``'cpu'``.

    Returns:
        FeatureNetwork: The network, with random weights where no checkpoint
        is given; then norms that start at zero are set to one.

    Raises:
        ValueError: There is no such network.
        FileNotFoundError: A file is missing.
        ImportError: The library that it comes from is missing.
    """
    name, _, checkpoint = text.partition('=')
    kind, colon, network = name.partition(':')
    if checkpoint:
        check_checkpoint_file(checkpoint)
    torch.manual_seed(0)
    if name.endswith('.py'):
        label, module = _from_config(name, checkpoint, device)
    elif colon and kind in ('mobilemamba', 'timm'):
        init_cfg = None
        if checkpoint:
            init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        build = _mobilemamba if kind == 'mobilemamba' else _timm
        label, module = build(network, init_cfg)
        if checkpoint:
            module.init_weights()  # reads the file
    else:
        raise ValueError(
            f'{text!r} is no network: give mobilemamba:ARCH, timm:NAME or a '
            'config file that ends in .py.'
        )
    if not checkpoint:
        wake_branches(module)
    weights = os.path.basename(checkpoint) or 'random weights'
    module.requires_grad_(False)  # of pictures alone
    return FeatureNetwork(label, module.to(device).eval(), weights)


def _mobilemamba(arch: str, init_cfg: dict | None) -> tuple[str, nn.Module]:
    return f'MobileMamba-{arch.upper()}', MobileMamba(arch, init_cfg=init_cfg)


def _timm(name: str, init_cfg: dict | None) -> tuple[str, nn.Module]:
    return name, TIMMBackbone(name, init_cfg=init_cfg)


def _from_config(
    path: str, checkpoint: str, device: str | torch.device
) -> tuple[str, nn.Module]:
    cfg = load_config(path)
    if checkpoint:
        model = load_model(cfg, checkpoint, device)
    else:
        model = build_model(cfg)
    return os.path.basename(path).partition('_')[0], model.backbone

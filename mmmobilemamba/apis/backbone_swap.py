"""Putting another backbone into the config of a detector or segmentor."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from ..checkpoints.checkpoint import (
    check_checkpoint_file,
    load_weights,
    read_state_dict,
)
from ..models.backbones.arch import ARCH_SETTINGS, resolve_arch
from ..models.backbones.timm import check_timm_name, inner_tensors

_OURS = 'mobilemamba_'
_HOST = 'host:'
# Without the frozen layers that suit pretrained weights alone.
HOST_BACKBONES = {
    'resnet18': dict(type='ResNet', depth=18, norm_eval=False),
    'mobilenet_v2': dict(type='MobileNetV2', out_indices=(1, 2, 4, 6)),
}
# A power of two with room for a stride of 64.
_PROBE = 128


@dataclass(frozen=True)
class BackboneChoice:
    """A backbone that was asked for.

    Args:
        label (str): What tells it from others, for tables.
        config (dict): Config for the host library's registry.
        weights (str, optional): File that it starts from. Defaults to None,
            which is random weights.
    """

    label: str
    config: dict
    weights: str | None = None

    @property
    def slug(self) -> str:
        """The label as a part of file names."""
        return re.sub(r'[^\w.-]+', '-', self.label).strip('-')


def parse_backbone(text: str) -> BackboneChoice:
    """Read the name of a backbone.

    Args:
        text (str): ``t2`` or ``mobilemamba_t2`` and so on, a name of timm,
            or ``host:resnet18`` and ``host:mobilenet_v2`` for the host
            library's own; ``NAME=FILE`` starts from that file.

    Returns:
        BackboneChoice: The backbone; nothing is built.

    Raises:
        ImportError: timm is wanted and missing.
        FileNotFoundError: There is no such file.
        ValueError: There is no such backbone.
    """
    name, equals, weights = text.partition('=')
    if name.startswith(_HOST):
        kind = name.removeprefix(_HOST)
        if kind not in HOST_BACKBONES:
            names = ', '.join(_HOST + known for known in HOST_BACKBONES)
            raise ValueError(f'{name} must be one of {names}.')
        config = dict(HOST_BACKBONES[kind])
    elif name in ARCH_SETTINGS or name.startswith(_OURS):
        arch = name.removeprefix(_OURS)
        resolve_arch(arch)
        config = dict(type='mmmobilemamba.MobileMamba', arch=arch)
    else:
        check_timm_name(name)
        config = dict(type='mmmobilemamba.TIMMBackbone', model_name=name)
    if not equals:
        return BackboneChoice(name, config)
    check_checkpoint_file(weights)
    config['init_cfg'] = dict(type='Pretrained', checkpoint=weights)
    stem = weights.rpartition('/')[2].rpartition('.')[0] or weights
    return BackboneChoice(f'{name} ({stem})', config, weights)


def parse_backbones(texts: Sequence[str]) -> list[BackboneChoice]:
    """Read the names of several backbones, each another one.

    Args:
        texts (Sequence[str]): What :func:`parse_backbone` reads.

    Returns:
        list[BackboneChoice]: The backbones in that order.

    Raises:
        ValueError: A name is unknown, or there twice.
    """
    choices = [parse_backbone(text) for text in texts]
    slugs = [choice.slug for choice in choices]
    for choice in choices:
        if slugs.count(choice.slug) > 1:
            raise ValueError(f'{choice.label} is named more than once.')
    return choices


def swap_backbone(cfg: Config, choice: BackboneChoice) -> None:
    """Put a backbone into a detector or segmentor, and fit the neck to it.

    Everything behind the neck stays as it is and sees the same strides. A
    :class:`DeconvFPN`, beside the backbone or within a
    :class:`PyramidBackbone`, makes the levels that the backbone lacks;
    other necks need a backbone with the strides of the old one.

    Args:
        cfg (Config): Config with a model that has a neck; changed in place.
        choice (BackboneChoice): The new backbone.

    Raises:
        ValueError: The model has no neck, the backbone not the strides that
            the neck wants, or its file does not fit.
    """
    scope = cfg.get('default_scope')
    model, old = cfg.model, cfg.model.get('backbone') or {}
    if str(old.get('type')).rpartition('.')[2] == 'PyramidBackbone':
        old, neck = old.backbone, deepcopy(old.neck)
    else:
        neck = deepcopy(model.get('neck'))
        if not isinstance(neck, dict) or 'in_channels' not in neck:
            raise ValueError(
                'The model needs a neck with in_channels, or a '
                'mmmobilemamba.PyramidBackbone, for another backbone to go '
                f'before it; got neck={neck and neck.get("type")!r}.'
            )
    new = dict(choice.config)
    # Still norms are for pretrained weights, and no network learns with the
    # initial ones.
    new['norm_eval'] = bool(choice.weights and old.get('norm_eval'))
    channels, strides = measure_maps(new, scope, check_weights=True)
    if str(neck.type).rpartition('.')[2] == 'DeconvFPN':
        if neck.get('out_strides') is None:
            neck.out_strides = _strides_of(neck, old, scope)
        neck.in_channels, neck.in_strides = channels, strides
        for name in ('num_finer', 'num_coarser'):
            neck.pop(name, None)
    else:
        wanted = measure_maps(old, scope)[1]
        if not set(wanted) <= set(strides):
            raise ValueError(
                f'{choice.label} has strides {strides} and the {neck.type} '
                f'wants {wanted}; mmmobilemamba.DeconvFPN with out_strides '
                'makes what is missing.'
            )
        kept = [strides.index(stride) for stride in wanted]
        neck.in_channels = [channels[index] for index in kept]
        if len(kept) < len(strides):
            levels = new.get('out_indices', range(len(strides)))
            new['out_indices'] = tuple(levels[index] for index in kept)
    model.backbone, model.neck = ConfigDict(new), neck
    model.pop('pretrained', None)


def measure_maps(
    backbone: dict, scope: str, check_weights: bool = False
) -> tuple[list[int], list[int]]:
    """Build a backbone and look at what it gives.

    Args:
        backbone (dict): Config of a backbone.
        scope (str): Host library whose registry knows it.
        check_weights (bool): Raise where the file of its ``init_cfg`` does
            not fit. Defaults to False.

    Returns:
        tuple[list[int], list[int]]: Channels and strides of its maps.

    Raises:
        ValueError: A file does not fit.
    """
    settings = dict(backbone)
    init_cfg = settings.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope(scope):
        module = revert_sync_batchnorm(MODELS.build(settings))
    module.eval()  # by itself: train() of some of the host's returns None
    if check_weights and init_cfg:
        _check_file(module, init_cfg)
    if hasattr(module, 'out_channels') and hasattr(module, 'out_strides'):
        return list(module.out_channels), list(module.out_strides)
    with torch.no_grad():
        maps = module(torch.zeros(1, 3, _PROBE, _PROBE))
    return [m.shape[1] for m in maps], [_PROBE // m.shape[3] for m in maps]


def _check_file(module: torch.nn.Module, init_cfg: dict) -> None:
    """Raise where a file does not fit; mmengine would say nothing."""
    if hasattr(module, 'out_strides'):
        module.init_cfg = init_cfg
        module.init_weights()  # ours check by themselves
        return
    path = init_cfg['checkpoint']
    tensors = inner_tensors(read_state_dict(path))
    known = {name.partition('.')[0] for name in module.state_dict()}
    # Without the classifier.
    tensors = {
        k: v for k, v in tensors.items() if k.partition('.')[0] in known
    }
    load_weights(module, tensors, path)


def _strides_of(neck: dict, old: dict, scope: str) -> list[int]:
    """Return the strides of a DeconvFPN that counts its levels."""
    strides = measure_maps(old, scope)[1]
    first = strides[0] // 2 ** neck.get('num_finer', 0)
    count = neck.get('num_finer', 0) + len(strides)
    return [first * 2**i for i in range(count + neck.get('num_coarser', 0))]

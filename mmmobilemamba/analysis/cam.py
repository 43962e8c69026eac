"""Feature maps and class activation maps of a model on a picture.

Written here in a few lines, because the package pytorch-grad-cam requires
opencv-python-headless, whose files overwrite those of the OpenCV that mmcv
uses, and scikit-learn.
"""

import difflib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..apis.inference import read_image

METHODS = ('gradcam', 'layercam')


@dataclass
class Views:
    """What a model sees in a picture.

    Attributes:
        image (np.ndarray): RGB pixels as the network gets them, (H, W, 3),
            without padding.
        target (str): What the gradient is of.
        method (str): How the maps were weighed.
        names (list[str]): Name of each layer.
        shapes (list[tuple[int, ...]]): Channels, height and width of each
            layer's map.
        energy (list[np.ndarray]): Mean magnitude over the channels of each
            layer, (H, W), from 0 to 1.
        cam (list[np.ndarray]): Class activation map of each layer, (H, W),
            from 0 to 1.
    """

    image: np.ndarray
    target: str
    method: str
    names: list[str]
    shapes: list[tuple[int, ...]]
    energy: list[np.ndarray]
    cam: list[np.ndarray]


def default_layers(model: nn.Module) -> list[str]:
    """Name the layers whose maps are worth a look.

    Args:
        model (nn.Module): Model of any of the libraries.

    Returns:
        list[str]: The last block of every stage of our backbone, or the
        backbone, all of whose maps are then taken.
    """
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        raise ValueError(
            f'{type(model).__name__} has no backbone: name the layers.'
        )
    if type(backbone).__name__ != 'MobileMamba':
        return ['backbone']
    return [
        f'backbone.stages.{i}.blocks.{len(stage.blocks) - 1}'
        for i, stage in enumerate(backbone.stages)
        if i <= backbone.out_indices[-1]
    ]


def look(
    model: nn.Module,
    path: str,
    layers: list[str] | None = None,
    target: int | None = None,
    method: str | None = None,
    score_thr: float = 0.3,
) -> Views:
    """Compute feature maps and class activation maps of a picture.

    The gradient is of a classifier's score before softmax; of a segmentor's,
    summed over the pixels that it gives the class; or of the scores of a
    detector's boxes of the class.

    Args:
        model (nn.Module): Model of ``apis.inference.load_model``.
        path (str): Image file.
        layers (list[str], optional): Names of modules that give maps (batch,
            channels, H, W), or tuples of such. Defaults to None, which is
            :func:`default_layers`.
        target (int, optional): Class. Defaults to None: the class of a
            classifier's best score, of most pixels, or of the box with the
            best score.
        method (str, optional): ``'gradcam'`` weighs channels by their mean
            gradient, ``'layercam'`` every place of each by its positive one.
            Defaults to None: gradcam for classifiers, which pool their maps,
            and layercam for the rest, whose gradients belong to places.
        score_thr (float): Lowest score of a box that counts; where none has
            it, the best box does. Defaults to 0.3.

    Returns:
        Views: Maps at the size of the picture.

    Raises:
        ValueError: A layer, class or method is unknown, or a detector finds
            no box.

    Source: Grad-CAM (arXiv:1610.02391); LayerCAM (TIP 2021).
    """
    if method is None:
        pools = model.cfg.default_scope == 'mmpretrain'
        method = 'gradcam' if pools else 'layercam'
    if method not in METHODS:
        raise ValueError(
            f'method must be one of {", ".join(METHODS)}, got {method!r}.'
        )
    layers = layers or default_layers(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # only that of the maps is wanted
    image, data = _load(model, path)
    data['inputs'].requires_grad_()
    with _maps_of(model, layers) as maps, torch.enable_grad():
        score, described = _score(model, data, target, score_thr)
    maps = {n: m for n, m in maps.items() if m.requires_grad}
    if not maps:
        raise ValueError(
            f'None of the layers {", ".join(layers)} gives a map (batch, '
            'channels, H, W).'
        )
    grads = torch.autograd.grad(score, [*maps.values()], allow_unused=True)
    padded, size = data['inputs'].shape[2:], image.shape[:2]
    return Views(
        image=image,
        target=described,
        method=method,
        names=list(maps),
        shapes=[tuple(m.shape[1:]) for m in maps.values()],
        energy=[
            _enlarged(m.detach().abs().mean(1), padded, size)
            for m in maps.values()
        ],
        cam=[
            _enlarged(_activation(m.detach(), g, method), padded, size)
            for m, g in zip(maps.values(), grads, strict=True)
        ],
    )


def _load(model: nn.Module, path: str) -> tuple[np.ndarray, dict]:
    """Return a picture as the network sees it, and what the model takes."""
    pixels = read_image(path)
    size = pixels.shape[:2]
    given = dict(
        img=pixels, img_shape=size, ori_shape=size, img_path=path, img_id=0
    )
    steps = [
        step
        for step in model.cfg.test_pipeline
        if not step['type'].startswith('Load')
    ]
    with DefaultScope.overwrite_default_scope(model.cfg.default_scope):
        sample = Compose(steps)(given)
    image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    data = model.data_preprocessor(pseudo_collate([sample]), False)
    return np.ascontiguousarray(image).astype(np.uint8), data


@contextmanager
def _maps_of(model: nn.Module, layers: list[str]) -> Iterator[dict]:
    """Collect the maps that modules give while the block runs."""
    modules = dict(model.named_modules())
    maps: dict[str, Tensor] = {}

    def keeper(name):
        def keep(module, args, output):
            many = isinstance(output, (tuple, list))
            for i, value in enumerate(output if many else [output]):
                if isinstance(value, Tensor) and value.dim() == 4:
                    maps[f'{name}[{i}]' if many else name] = value

        return keep

    with ExitStack() as stack:
        for name in layers:
            if name not in modules:
                near = difflib.get_close_matches(name, modules, n=3)
                near = near or [n for n, _ in model.named_children()]
                raise ValueError(
                    f'{type(model).__name__} has no module {name!r}, but '
                    f'{", ".join(near)}.'
                )
            handle = modules[name].register_forward_hook(keeper(name))
            stack.callback(handle.remove)
        yield maps


def _score(
    model: nn.Module, data: dict, target: int | None, score_thr: float
) -> tuple[Tensor, str]:
    """Return what to take the gradient of, and what to call it."""
    scope = model.cfg.default_scope
    samples = data.get('data_samples')
    if scope == 'mmdet':
        return _box_score(model, data, target, score_thr)
    scores = model(data['inputs'], samples, mode='tensor')
    if target is not None and target not in range(scores.shape[1]):
        raise ValueError(
            f'target must be 0 to {scores.shape[1] - 1}, got {target}.'
        )
    if scope == 'mmpretrain':
        best = int(scores[0].argmax())
        target = best if target is None else target
        share = float(scores[0].detach().softmax(0)[target])
        return scores[0, target], f'{_class_name(model, target)} {share:.2f}'
    labels = scores[0].argmax(0)
    if target is None:
        target = int(labels.flatten().bincount().argmax())
    mask = labels == target
    if not mask.any():
        mask = torch.ones_like(mask)
    name = _class_name(model, target)
    return scores[0, target][mask].sum(), f'pixels of {name}'


def _box_score(
    model: nn.Module, data: dict, target: int | None, score_thr: float
) -> tuple[Tensor, str]:
    found = model(**data, mode='predict')[0].pred_instances
    if target is None and len(found):
        target = int(found.labels[found.scores.argmax()])
    scores = found.scores[found.labels == target]
    if not len(scores):
        raise ValueError(
            'The detector finds no box'
            + ('' if target is None else f' of class {target}')
            + ' in the picture.'
        )
    kept = (
        scores[scores >= score_thr]
        if scores.max() >= score_thr
        else scores.max()[None]
    )
    name = _class_name(model, target)
    number = f'{len(kept)} boxes' if len(kept) > 1 else 'box'
    return kept.sum(), f'{number} of {name}, up to {float(kept.max()):.2f}'


def _class_name(model: nn.Module, label: int) -> str:
    names = (model.dataset_meta or {}).get('classes')
    return str(names[label]) if names else f'class {label}'


def _activation(maps: Tensor, grad: Tensor | None, method: str) -> Tensor:
    """Return the class activation map (batch, H, W) of a layer."""
    if grad is None:
        return maps.new_zeros(maps.shape[0], *maps.shape[2:])
    if method == 'gradcam':
        weights = grad.mean((2, 3), keepdim=True)
    else:
        weights = grad.relu()
    return (weights * maps).sum(1).relu()


def _enlarged(
    values: Tensor, padded: torch.Size, size: tuple[int, int]
) -> np.ndarray:
    """Bring a map (1, H, W) to the size of the picture and to 0 to 1."""
    values = F.interpolate(
        values[None], tuple(padded), mode='bilinear', align_corners=False
    )[0, 0, : size[0], : size[1]]
    values = values - values.min()
    return (values / values.max().clamp(min=1e-12)).cpu().numpy()

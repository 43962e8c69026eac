"""Feature maps and class activation maps of a network on an image.

A few lines here, because the package pytorch-grad-cam requires
opencv-python-headless, whose files overwrite those of mmcv's OpenCV.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..apis.inference import load_sample
from ..apis.input_size import input_channels
from ..models.layers import MobileMambaBlock
from .figures import figure_file
from .networks import MEAN, STD, did_you_mean, host_of, read_rgb

METHODS = ('gradcam', 'layercam')
_SCORE_THR = 0.3  # of a detector's boxes that count, unless none has it


def compute_cam(
    model: nn.Module,
    path: str,
    size: tuple[int, int] = (224, 224),
    layers: Sequence[str] | None = None,
    target: str | None = None,
    method: str | None = None,
) -> tuple[np.ndarray, str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Compute feature maps and class activation maps of an image.

    The gradient is of a class's score before softmax, in a segmentor summed
    over the pixels that it gives the class, or of a detector's boxes of it.

    Args:
        model (nn.Module): Whole network, which is frozen.
        path (str): Image file, read by the test pipeline of a config.
        size (tuple[int, int]): Height and width, where there is no config.
        layers (Sequence[str], optional): Names of modules that give maps
            (batch, channels, H, W), or tuples of such. Defaults to None: the
            last blocks of our stages, or the maps of another backbone.
        target (str, optional): Name or number of the class. Defaults to
            None: that of the best score, of most pixels, of the best box.
        method (str, optional): ``'gradcam'`` weighs channels by their mean
            gradient, ``'layercam'`` every place of each by its positive one.
            Defaults to None: layercam for detectors and segmentors.

    Returns:
        tuple: RGB or grey pixels as the network gets them, (H, W, 3) or
        (H, W); what the gradient is of; mean magnitude and activation map of
        each layer, (H, W), by its name and shape. All values are 0 to 1.

    Raises:
        ValueError: A layer or class is unknown, a detector finds no box, or
            the image cannot be read for the network.

    Source: Grad-CAM (arXiv:1610.02391); LayerCAM (TIP 2021).
    """
    model.requires_grad_(False)
    dense = host_of(model) in ('mmdet', 'mmseg')
    pooled = (method or METHODS[dense]) == 'gradcam'
    image, data = _load(model, path, size)
    data['inputs'].requires_grad_()
    maps: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name in layers or _default_layers(modules):
            if name not in modules:
                hint = did_you_mean(name, modules)
                raise ValueError(f'There is no module {name!r}.{hint}')
            hook = partial(_keep, maps, name)
            handle = modules[name].register_forward_hook(hook)
            stack.enter_context(handle)
        score, described = _score(model, data, target)
    if not maps:
        raise ValueError('No layer gives a map (batch, channels, H, W).')
    grads = torch.autograd.grad(
        score, [*maps.values()], allow_unused=True, materialize_grads=True
    )
    padded, (height, width) = data['inputs'].shape[2:], image.shape[:2]

    def enlarged(values: Tensor) -> np.ndarray:
        values = F.interpolate(values[None], tuple(padded), mode='bilinear')
        values = values[0, 0, :height, :width]
        values = values - values.min()
        return (values / values.max().clamp(min=1e-12)).cpu().numpy()

    found = {}
    for (name, values), grad in zip(maps.items(), grads, strict=True):
        values = values.detach()
        weights = grad.mean((2, 3), keepdim=True) if pooled else grad.relu()
        cam = enlarged((weights * values).sum(1).relu())
        shape = ' x '.join(map(str, values.shape[1:]))
        found[f'{name}\n{shape}'] = enlarged(values.abs().mean(1)), cam
    return image, described, found


def draw_cam(
    image: np.ndarray,
    layers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | os.PathLike,
    title: str,
) -> None:
    """Draw an image and its feature maps, below them its activation maps."""
    height, width = image.shape[:2]
    columns = len(layers) + 1
    size = (2.6 * columns + 0.3, 5.2 * height / width + 1.1)
    with figure_file(path, size) as figure:
        figure.suptitle(title)
        grid = figure.subplots(2, columns)
        for panel in grid.flatten():
            panel.set_axis_off()
        grid[0][0].imshow(image, cmap='gray')
        for i, (name, (energy, cam)) in enumerate(layers.items(), 1):
            grid[0][i].set_title(name, fontsize='small')
            grid[0][i].imshow(energy)
            grid[1][i].imshow(image, cmap='gray')
            grid[1][i].imshow(cam, cmap='jet', alpha=0.55)


def _default_layers(modules: Mapping[str, nn.Module]) -> list[str]:
    blocks = [k for k, m in modules.items() if isinstance(m, MobileMambaBlock)]
    if blocks:  # the last one of each stage
        return [*{name.rpartition('.')[0]: name for name in blocks}.values()]
    children = [name for name in modules if name and '.' not in name]
    return ['backbone'] if 'backbone' in modules else children


def _keep(maps: dict, name: str, module, args, output) -> None:
    """Keep the maps of a module that the score may depend on."""
    many = isinstance(output, tuple | list)
    for i, value in enumerate(output if many else [output]):
        if getattr(value, 'requires_grad', False) and value.dim() == 4:
            maps[f'{name}[{i}]' if many else name] = value


def _load(model: nn.Module, path: str, size) -> tuple[np.ndarray, dict]:
    """Return an image as the network sees it, and what the model takes."""
    if host_of(model) is None:
        x = read_rgb(path, size)
        image = (x[0].permute(1, 2, 0).numpy() * STD + MEAN) / 255
        device = next(model.parameters()).device
        return image.clip(0, 1), dict(inputs=x.to(device))
    if not hasattr(model, 'cfg'):
        raise ValueError('The config has no test_dataloader to read it by.')
    data = load_sample(model, path)
    pixels = data['inputs'][0].float().permute(1, 2, 0).numpy()
    channels = input_channels(getattr(model, 'backbone', model))
    if pixels.shape[2] != channels:
        text = f'{path} has {pixels.shape[2]} channels, the network {channels}'
        raise ValueError(text)
    image = pixels[..., ::-1] if pixels.shape[2] == 3 else pixels.mean(2)
    data = model.data_preprocessor(data, False)
    return image / max(255, image.max()), data


def _score(
    model: nn.Module, data: dict, target: str | None
) -> tuple[Tensor, str]:
    """Return what to take the gradient of, and its name."""
    meta = getattr(model, 'dataset_meta', None) or {}
    names = [str(name) for name in meta.get('classes') or ()]
    if target in names:
        target = str(names.index(target))
    if target is not None and not target.isdecimal():
        known = ', '.join(names[:20]) or 'no names, so give a number'
        raise ValueError(f'No class is called {target!r}; there are {known}.')
    label = None if target is None else int(target)
    if host_of(model) == 'mmdet':
        found = model(**data, mode='predict')[0].pred_instances
        if label is None and len(found):
            label = int(found.labels[found.scores.argmax()])
        scores = found.scores[found.labels == label]
        if not len(scores):
            what = 'no box' if label is None else f'no box of class {label}'
            raise ValueError(f'The detector finds {what}.')
        scores = scores[scores >= scores.max().clamp(max=_SCORE_THR)]
        score, what = scores.sum(), f'{len(scores)} boxes of '
    else:
        more = {} if host_of(model) is None else dict(mode='tensor')
        scores = model(data['inputs'], **more)[0]
        scores = scores.reshape(len(scores), -1)  # classes, pixels or 1
        best = scores.argmax(0)
        if label is None:
            label = int(best.bincount().argmax())
        if label >= len(scores):
            raise ValueError(f'Class {label} is none of {len(scores)}.')
        # Of one that is best nowhere, all pixels count.
        mask = (best == label) | ~(best == label).any()
        score = scores[label][mask].sum()
        what = 'pixels of ' if len(best) > 1 else ''
    name = names[label] if label < len(names) else f'class {label}'
    return score, what + name

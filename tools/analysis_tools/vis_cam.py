"""Draw feature maps and Grad-CAM of a model on a picture."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from mmengine.device import get_device
from mmengine.structures import BaseDataElement
from torch import nn

from mmmobilemamba.analysis.cam import METHODS, Views, look
from mmmobilemamba.analysis.figures import check_figure_path, figure_file
from mmmobilemamba.apis.command_line import (
    add_cfg_options,
    check_device,
    user_errors,
)
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import draw, load_model, predict, read_image
from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints

# Pictures below this height are enlarged under what is drawn on them.
LEGIBLE = 480  # pixels
CALLED = dict(gradcam='Grad-CAM', layercam='LayerCAM')


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='image file')
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint of its model; without it, random weights',
    )
    parser.add_argument(
        '--target',
        metavar='CLASS',
        help='name or number of the class; by default the best one',
    )
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='NAME',
        help='modules whose maps to draw; by default the stages of the '
        'backbone',
    )
    parser.add_argument(
        '--method',
        choices=METHODS,
        help='default: gradcam for classifiers, layercam for the rest',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='lowest score of a box that counts; default: %(default)s',
    )
    parser.add_argument(
        '--out',
        default='outputs/cam.jpg',
        help='file of the figure; default: %(default)s',
    )
    parser.add_argument(
        '--device',
        default=get_device(),
        help='device to compute on; default here: %(default)s',
    )
    add_cfg_options(parser)
    return parser


def find_class(model: nn.Module, text: str | None) -> int | None:
    """Return the number of a class that the user has named."""
    if text is None or text.isdigit():
        return None if text is None else int(text)
    names = [str(n) for n in (model.dataset_meta or {}).get('classes') or []]
    if text not in names:
        raise ValueError(
            f'--target: no class is called {text!r}; there are '
            f'{", ".join(names[:20]) or "no names, so give a number"}.'
        )
    return names.index(text)


def drawn_prediction(
    model: nn.Module, path: str, score_thr: float
) -> np.ndarray:
    """Return RGB pixels with what the model predicts."""
    image = read_image(path)
    factor = max(1, round(LEGIBLE / image.shape[0]))
    sample = enlarged(predict(model, image), factor)
    image = image.repeat(factor, 0).repeat(factor, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'prediction.png')
        draw(model, image, sample, file, score_thr)
        return read_image(file)[..., ::-1]


def enlarged(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """Return a prediction for the enlarged picture."""
    if 'pred_instances' in sample:
        found = sample.pred_instances
        found.bboxes = found.bboxes * factor
        if 'masks' in found:
            masks = torch.as_tensor(found.masks)
            for dim in (1, 2):
                masks = masks.repeat_interleave(factor, dim)
            found.set_field(masks, 'masks', dtype=None)
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data
        for dim in (1, 2):
            labels = labels.repeat_interleave(factor, dim)
        sample.pred_sem_seg = type(sample.pred_sem_seg)(data=labels)
    return sample


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map from 0 to 1 over a picture, both (H, W)."""
    colours = colormaps['jet'](heat)[..., :3]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] / 255
    return np.clip(0.45 * grey + 0.55 * colours, 0, 1)


def draw_views(
    views: Views, prediction: np.ndarray, title: str, path: str
) -> None:
    """Draw the picture and its maps, then the prediction and its CAMs."""
    columns = len(views.names) + 1
    height, width = views.image.shape[:2]
    side = 2.6
    size = (side * columns + 0.3, 2 * (side * height / width + 0.35) + 0.4)
    with figure_file(path, size) as figure:
        figure.suptitle(title)
        grid = figure.subplots(2, columns)
        panels = [(views.image, 'picture'), (prediction, 'prediction')]
        for line, (picture, name) in zip(grid, panels):
            line[0].imshow(picture)
            line[0].set_title(name, fontsize='medium')
        for i, name in enumerate(views.names):
            channels, *cells = views.shapes[i]
            grid[0][i + 1].imshow(views.energy[i], cmap='viridis')
            grid[0][i + 1].set_title(
                f'{short(name, i)}: {channels} x {cells[0]} x {cells[1]}',
                fontsize='medium',
            )
            grid[1][i + 1].imshow(overlay(views.image, views.cam[i]))
            grid[1][i + 1].set_title(
                f'CAM of {short(name, i)}', fontsize='medium'
            )
        for ax in grid.flatten():
            ax.set_axis_off()


def short(name: str, index: int) -> str:
    """Return what a layer is called in a figure."""
    if name.startswith(('backbone.stages.', 'backbone[')):
        return f'stage {index + 1}'
    return name


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        check_figure_path(args.out)
        device = check_device(args.device)
        if args.checkpoint:
            check_checkpoint_file(args.checkpoint)
        read_image(args.image)
        cfg = load_config(args.config, args.cfg_options)
        torch.manual_seed(0)
        model = load_model(cfg, args.checkpoint, device)
        target = find_class(model, args.target)
        prediction = drawn_prediction(model, args.image, args.score_thr)
        views = look(
            model,
            args.image,
            args.layers,
            target,
            args.method,
            args.score_thr,
        )
        weights = os.path.basename(args.checkpoint or '') or 'random weights'
        title = (
            f'{type(model).__name__}, {weights}: '
            f'{CALLED[views.method]} of {views.target}'
        )
        draw_views(views, prediction, title, args.out)
    print(f'{title}\nThe figure is {args.out}')


if __name__ == '__main__':
    main()

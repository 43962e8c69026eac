"""Predicting and drawing single images with any of the three libraries."""

import os
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import BaseDataElement
from mmengine.utils import scandir
from torch import nn

from ..checkpoints.checkpoint import load_checkpoint
from ..datasets.data_paths import first_dataset
from .large_images import bound_memory
from .options import drawing_config

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def find_images(path: str | os.PathLike) -> list[Path]:
    """List an image file, or a folder's by name, or raise an OSError."""
    path = Path(path)
    if path.is_file():
        return [path]
    names = scandir(path, IMAGE_SUFFIXES, case_sensitive=False)
    files = sorted(path / name for name in names)
    if not files:
        raise FileNotFoundError(f'{path} has no {", ".join(IMAGE_SUFFIXES)}.')
    return files


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image to BGR uint8 (height, width, 3), or raise ValueError."""
    content = np.fromfile(path, np.uint8)
    # As the pipelines do: imread takes files that are cut off for whole.
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise ValueError(f'{path} is no image that can be read.')
    return image


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config for one device; fetch no weights."""
    settings = deepcopy(cfg.model)
    settings.pop('pretrained', None)
    settings.get('backbone', {}).pop('init_cfg', None)
    # MMPretrain's configs keep it outside, where a Runner finds it.
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    scope = cfg.get('default_scope')
    with registry.DefaultScope.overwrite_default_scope(scope):
        return revert_sync_batchnorm(registry.MODELS.build(settings))


def load_model(
    cfg: Config, checkpoint: str | None, device: str | torch.device
) -> nn.Module:
    """Build the model of a config and fill it from a checkpoint.

    Args:
        cfg (Config): Config of MMDetection, MMSegmentation or MMPretrain.
        checkpoint (str, optional): Checkpoint file or address; None keeps
            random weights.
        device (str or torch.device): Where the model goes.

    Returns:
        nn.Module: The model in evaluation mode, with its config and classes.
    """
    model, meta = build_model(cfg), None
    registry.init_default_scope(cfg.default_scope)
    if checkpoint is not None:
        content = load_checkpoint(model, checkpoint)
        meta = (content.get('meta') or {}).get('dataset_meta')
    dataset = first_dataset(cfg.test_dataloader.dataset)
    if not meta:
        meta = registry.DATASETS.build(dict(dataset, lazy_init=True)).metainfo
    model.cfg, model.dataset_meta = cfg, meta
    bound_memory(model)
    return model.to(device).eval()


def optimize_backbone(
    model: nn.Module, deploy: bool = False, compile: bool = False
) -> None:
    """Fuse and compile the backbone of a model whose weights are loaded.

    Args:
        model (nn.Module): Model of any of the three libraries, in eval mode.
        deploy (bool): Fuse norms into convolutions. Defaults to False.
        compile (bool): Let torch.compile make code for it, with the weights
            as constants, for every input size anew. Defaults to False.
    """
    # Below what wraps it for several processes or augmentation.
    holders = (m for m in model.modules() if hasattr(m, 'backbone'))
    backbone = getattr(next(holders, None), 'backbone', None)
    if deploy:
        backbone.switch_to_deploy()
    if compile:
        # Code for any size is slower, and takes minutes to make.
        backbone.compile(dynamic=False, options=dict(freezing=True))


def load_sample(model: nn.Module, path: str) -> dict:
    """Load an image file, with as many channels as the config's test pipeline
    reads, for ``test_step`` of a model of :func:`load_model`."""
    steps = first_dataset(model.cfg.test_dataloader.dataset).pipeline
    steps = [step for step in steps if 'Annotations' not in str(step['type'])]
    scope = model.cfg.default_scope
    with registry.DefaultScope.overwrite_default_scope(scope):
        return pseudo_collate([Compose(steps)(dict(img_path=path, img_id=0))])


@torch.no_grad()
def predict(model: nn.Module, path: str) -> BaseDataElement:
    """Predict an image file with a model of :func:`load_model`."""
    return model.test_step(load_sample(model, path))[0]


def draw(
    model: nn.Module,
    image: np.ndarray,
    sample: BaseDataElement,
    out_file: str,
    score_thr: float = 0.3,
) -> None:
    """Draw a prediction of :func:`predict` on its image, BGR pixels, to a
    file; detections from ``score_thr`` on."""
    scope, meta = model.cfg.default_scope, model.dataset_meta
    settings = drawing_config(model.cfg.get('visualizer') or {}, scope)
    # One of its own, beside that of a Runner in the same process.
    own = dict(name='image_demo', vis_backends=None, save_dir=None)
    visualizer = registry.VISUALIZERS.build(dict(settings, **own))
    visualizer.dataset_meta = meta
    args = dict(image=image[..., ::-1], data_sample=sample, draw_gt=False)
    args['out_file'] = out_file
    if scope == 'mmpretrain':
        visualizer.visualize_cls(classes=meta.get('classes'), **args)
        return
    if scope == 'mmdet':
        args['pred_score_thr'] = score_thr
    visualizer.add_datasample('prediction', **args)

"""Let two-stage detectors run on shapes alone.

Which boxes a region proposal network keeps depends on values. For a count
they are replaced by as many boxes as it keeps at most.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn


@contextmanager
def shape_only_proposals(model: nn.Module) -> Iterator[None]:
    """Replace the choice and the pooling of proposals by their shapes.

    MMDetection's own forward pass in tensor mode is kept: its RoI head gives
    the mask head the first 100 of the proposals.

    Args:
        model (nn.Module): Any model; one without proposals is left alone.
    """
    rpn = getattr(model, 'rpn_head', None)
    settings = (getattr(model, 'test_cfg', None) or {}).get('rpn')
    if rpn is None or settings is None or not hasattr(model, 'roi_head'):
        yield
        return
    kept = settings.max_per_img

    def choose(scores: list[Tensor], *args, **kwargs) -> list:
        boxes = scores[0].new_empty(kept, 4)
        batch = scores[0].shape[0]
        return [SimpleNamespace(bboxes=boxes) for _ in range(batch)]

    with ExitStack() as stack:
        stack.enter_context(patch.object(rpn, 'predict_by_feat', choose))
        for module in model.roi_head.modules():
            # mmdet's base class of everything that crops features
            if hasattr(module, 'roi_layers'):
                stack.enter_context(
                    patch.object(module, 'forward', _pooling(module))
                )
        yield


def _pooling(extractor: nn.Module):
    """Return a forward pass that gives crops of the right shape."""

    def forward(feats: tuple[Tensor, ...], rois: Tensor, *args, **kwargs):
        size = extractor.roi_layers[0].output_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        return feats[0].new_empty(len(rois), extractor.out_channels, *size)

    return forward


def is_detector(model: nn.Module) -> bool:
    """Tell whether a model is one of MMDetection's.

    Args:
        model (nn.Module): Any model.

    Returns:
        bool: False also where MMDetection has never been imported.
    """
    mmdet = sys.modules.get('mmdet.models.detectors')
    return mmdet is not None and isinstance(model, mmdet.BaseDetector)


def data_samples(shape: torch.Size) -> list:
    """Return what MMDetection wants to know of each picture.

    Args:
        shape (torch.Size): Shape of the batch (batch, channels, H, W).

    Returns:
        list: A DetDataSample per picture, of one neither scaled nor padded.
    """
    from mmdet.structures import DetDataSample

    size = tuple(shape[2:])
    meta = dict(
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
    )
    return [DetDataSample(metainfo=meta) for _ in range(shape[0])]

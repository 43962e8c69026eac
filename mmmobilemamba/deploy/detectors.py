"""Detectors of MMDetection with decoding and suppression inside."""

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from .arguments import ExportOptions
from .networks import Network


class Detector(Network):
    """One stage with anchors, Faster R-CNN or Mask R-CNN.

    Boxes are (1, k, 4) in pixels of the image that went in, scores and labels
    (1, k), the best first; an image without any has one row of label -1.
    Masks (1, k, H, W) are probabilities within the box.
    Raises ValueError for one that predicts by rules that are not written here.
    """

    def __init__(self, model: nn.Module, options: ExportOptions):
        super().__init__(model, options)
        if options.dynamic_batch:
            raise ValueError('A detector takes one image, no free batch.')
        self.two_stages = isinstance(model, TwoStageDetector)
        if not self.two_stages and not isinstance(model, SingleStageDetector):
            raise ValueError(
                f'{type(model).__name__} cannot be exported; one-stage '
                'detectors with anchors, Faster R-CNN and Mask R-CNN can.'
            )
        self.head = head = dense_head(model)
        _check(head, head, isinstance(head, AnchorHead))
        self.output_names = ('boxes', 'scores', 'labels')
        levels = range(len(head.prior_generator.strides))
        self.inner_names = tuple(
            f'dense_{kind}{i}' for kind in ('cls', 'reg') for i in levels
        )
        if self.two_stages:
            self.inner_names += ('proposals', 'proposal_scores')
            self.inner_names += ('roi_cls', 'roi_reg')
            head = model.roi_head
            extractors = [head.bbox_roi_extractor]
            if head.with_mask:
                self.output_names += ('masks',)
                extractors.append(head.mask_roi_extractor)
            plain = type(head) is StandardRoIHead and all(
                type(extractor) is SingleRoIExtractor
                and layer.aligned
                and layer.pool_mode == 'avg'
                for extractor in extractors
                for layer in extractor.roi_layers
            )
            _check(head, head.bbox_head, plain)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        size = height, width = self.size_of(x)
        divisor = self.settings['pad_divisor']
        # right and bottom, as MMDetection does
        pads = [(divisor - s % divisor) % divisor for s in (width, height)]
        if self.options.dynamic_size or any(pads):
            x = F.pad(x, (0, pads[0], 0, pads[1]))
        feats = self.model.extract_feat(x)
        maps = self.head(feats)
        found = _choose(self._dense(*maps, size), self.head.test_cfg)
        inner = (*maps[0], *maps[1])
        if self.two_stages:
            roi_head = self.model.roi_head
            proposals, scores, _ = found
            pooled = _extract(roi_head.bbox_roi_extractor, feats, proposals)
            if roi_head.with_shared_head:
                pooled = roi_head.shared_head(pooled)
            rois = roi_head.bbox_head(pooled)
            inner += (proposals, scores, *rois)
            candidates = self._classify(*rois, proposals, scores > 0, size)
            found = _choose(candidates, roi_head.test_cfg)
            if roi_head.with_mask:
                boxes, _, labels = found
                pooled = _extract(roi_head.mask_roi_extractor, feats, boxes)
                masks = roi_head.mask_head(pooled).sigmoid()
                found += (masks_of(roi_head.mask_head, masks, labels),)
        return *(value[None] for value in found), *inner

    def _dense(self, cls_scores, bbox_preds, size) -> tuple[Tensor, ...]:
        """Decode the best anchors of every level; label proposals by it."""
        head, cfg = self.head, self.head.test_cfg
        count = cfg.get('nms_pre', -1)
        count = count if count > 0 else torch.iinfo(torch.int32).max
        priors = head.prior_generator.grid_priors(
            [score.shape[-2:] for score in cls_scores],
            dtype=bbox_preds[0].dtype,
            device=bbox_preds[0].device,
        )
        found = []
        for level, (score, delta, prior) in enumerate(
            zip(cls_scores, bbox_preds, priors, strict=True)
        ):
            score = probabilities(head, score).flatten()
            there = torch.as_tensor(score.shape[0])
            most = torch.minimum(there, torch.tensor(count))
            score, place = torch.topk(score, most)
            anchor = torch.div(place, head.num_classes, rounding_mode='trunc')
            label = place - anchor * head.num_classes
            if self.two_stages:
                label = torch.full_like(label, level)
            delta = delta.permute(0, 2, 3, 1).reshape(-1, 4)[anchor]
            found.append((prior[anchor], delta, score, label))
        prior, delta, score, label = map(torch.cat, zip(*found, strict=True))
        boxes = _decode(head, prior, delta, size)
        least = cfg.get('min_bbox_size', -1)
        if least >= 0:
            wide = (boxes[:, 2:] - boxes[:, :2] > least).all(-1)
            score = torch.where(wide, score, torch.full_like(score, -1.0))
        return boxes, score, label

    def _classify(self, scores, deltas, proposals, there, size) -> tuple:
        """Return a box, score and label for every proposal and class."""
        head = self.model.roi_head.bbox_head
        classes = head.num_classes
        scores = torch.softmax(scores, dim=-1)[:, :-1] * there[:, None]
        kinds = 1 if head.reg_class_agnostic else classes
        priors = proposals[:, None].expand(-1, kinds, -1).reshape(-1, 4)
        boxes = _decode(head, priors, deltas.reshape(-1, 4), size)
        boxes = boxes.reshape(-1, kinds, 4).expand(-1, classes, -1)
        labels = torch.arange(classes, device=boxes.device)
        labels = labels.expand(proposals.shape[0], -1)
        return boxes.reshape(-1, 4), scores.flatten(), labels.reshape(-1)


def dense_head(model: nn.Module) -> nn.Module:
    """Return the head that looks at every anchor, of proposals or boxes."""
    return model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head


def probabilities(head: nn.Module, scores: Tensor) -> Tensor:
    """Turn a level's (1, n, H, W) into (anchors, classes)."""
    scores = scores.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels)
    if head.use_sigmoid_cls:
        return scores.sigmoid()
    return scores.softmax(-1)[:, :-1]


def masks_of(head: nn.Module, masks: Tensor, labels: Tensor) -> Tensor:
    """Take (n, H, W) of the labels from masks (n, classes, H, W)."""
    if not head.class_agnostic:
        place = labels.clamp(min=0).reshape(-1, 1, 1, 1)
        masks = masks.gather(1, place.expand(-1, -1, *masks.shape[2:]))
    return masks[:, 0]


def rois_of(boxes: Tensor) -> Tensor:
    """Put the number of the image, 0, before boxes (n, 4)."""
    return torch.cat((torch.zeros_like(boxes[:, :1]), boxes), dim=1)


def _extract(extractor: nn.Module, feats, boxes: Tensor) -> Tensor:
    """Pool each of boxes (n, 4) from the level of its size."""
    rois = rois_of(boxes)
    layers = extractor.roi_layers
    level_of = extractor.map_roi_levels(rois, len(layers))
    pooled, order = [], []
    for level, layer in enumerate(layers):
        at = (level_of == level).nonzero().flatten()
        order.append(at)
        # mmcv's own operator has no symbol; both sample alike.
        pooled.append(
            roi_align(
                feats[level],
                rois[at],
                layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
                aligned=True,
            )
        )
    order = torch.cat(order)
    back = torch.zeros_like(order).scatter(
        0, order, torch.arange(order.shape[0], device=order.device)
    )
    return torch.cat(pooled)[back]


def _decode(head: nn.Module, prior: Tensor, delta: Tensor, size) -> Tensor:
    """Turn deltas (n, 4) into boxes within the image."""
    boxes = head.bbox_coder.decode(prior, delta)
    # Sides are numbers or, of a free size, what the tracer follows.
    height, width = (torch.as_tensor(side).to(boxes.dtype) for side in size)
    most = torch.stack((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), most)


def _choose(candidates: tuple, cfg) -> tuple[Tensor, ...]:
    """Suppress and keep as a config says."""
    least = cfg.get('score_thr', 0.0)
    return suppress(*candidates, cfg.nms.iou_threshold, least, cfg.max_per_img)


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_thr: float,
    score_thr: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress overlapping boxes within each label; keep the best.

    Takes boxes (n, 4) as left, top, right, bottom in pixels, scores (n,) and
    int64 labels (n,), and returns those that are left, ``count`` at most, the
    best first. Without any it is one row of 0, 0 and -1, as runtimes stumble
    over empty tensors.
    """
    at = (scores > score_thr).nonzero().flatten()
    boxes, scores, labels = boxes[at], scores[at], labels[at]
    nothing = boxes.new_zeros(1, 4)
    # As mmcv: boxes of different labels are moved so that none overlap.
    span = torch.cat((boxes, nothing)).max() + 1
    moved = boxes + labels[:, None].to(boxes.dtype) * span
    kept = nms(moved, scores, iou_thr)[:count]
    rows = torch.as_tensor(kept.shape[0]).clamp(min=1)
    return (
        torch.cat((boxes[kept], nothing))[:rows],
        # Some runtimes round a sigmoid to more than 1.
        torch.cat((scores[kept].clamp(0, 1), nothing[0, :1]))[:rows],
        torch.cat((labels[kept], labels.new_full((1,), -1)))[:rows],
    )


def _check(head: nn.Module, coded: nn.Module, plain: bool) -> None:
    """Refuse a head that predicts by other rules."""
    cfg, why = head.test_cfg.get('nms', {}), None
    if not plain or hasattr(head, 'atss_centerness'):
        why = (
            'anchor heads such as RetinaHead, SSDHead and RPNHead can be, and '
            'StandardRoIHead with SingleRoIExtractor and aligned RoIAlign'
        )
    elif type(coded.bbox_coder) is not DeltaXYWHBBoxCoder:
        why = f'its boxes are coded by {type(coded.bbox_coder).__name__}'
    elif cfg.get('type', 'nms') != 'nms' or cfg.get('class_agnostic'):
        why = f'plain nms within each class can be, got nms={dict(cfg)}'
    if why:
        raise ValueError(f'{type(head).__name__} cannot be exported: {why}.')

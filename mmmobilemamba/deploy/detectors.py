"""Detectors of MMDetection with decoding and suppression inside."""

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn
from torchvision.ops import roi_align

from .boxes import suppress, take, top_k
from .networks import Network, preprocess_settings

# Names within the graph of a two-stage detector, which are no outputs.
STAGES = ('proposals', 'proposal_scores', 'roi_cls', 'roi_reg')


class Detector(Network):
    """Boxes, scores and labels; masks where the model predicts them.

    Boxes are (batch, k, 4) in pixels of the image that went in, scores and
    labels (batch, k), the best first; rows beyond an image's boxes have label
    -1. Masks (batch, k, H, W) are probabilities within the box.

    Args:
        fixed_count (bool): Give as many rows as the config keeps at most,
            rather than those of the fullest image of the batch.
    """

    def __init__(self, *args, fixed_count: bool):
        super().__init__(*args)
        self.fixed_count = fixed_count
        self.divisor = preprocess_settings(self.model)['pad_divisor']
        self.output_names = ('boxes', 'scores', 'labels')
        if self.model.with_mask:
            self.output_names += ('masks',)
        count = {} if fixed_count else {1: 'count'}
        self.dynamic = (count,) * len(self.output_names)
        self.head = dense_head(self.model)
        right = isinstance(self.head, AnchorHead)
        _check(self.head, self.head.test_cfg, right)
        levels = range(len(self.head.prior_generator.strides))
        self.inner_names = tuple(
            f'dense_{kind}{i}' for kind in ('cls', 'reg') for i in levels
        )

    def _maps(self, x: Tensor):
        """Pad right and bottom, as MMDetection does; extract the maps."""
        height, width = self.size_of(x)
        right, bottom = (
            (self.divisor - side % self.divisor) % self.divisor
            for side in (width, height)
        )
        if not self.fixed_size or right or bottom:
            x = F.pad(x, (0, right, 0, bottom))
        return self.model.extract_feat(x)

    def _dense(self, cls_scores, bbox_preds, size, per_level: bool) -> tuple:
        """Decode the best anchors of every level of the dense head."""
        head, cfg = self.head, self.head.test_cfg
        classes, threshold = head.num_classes, cfg.get('score_thr', 0)
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
            score = probabilities(head, score).flatten(1)
            delta = delta.permute(0, 2, 3, 1).reshape(delta.shape[0], -1, 4)
            if threshold > 0:
                score = torch.where(
                    score > threshold, score, torch.full_like(score, -1.0)
                )
            score, place = top_k(score, count)
            anchor = torch.div(place, classes, rounding_mode='trunc')
            label = place - anchor * classes
            if per_level:
                label = torch.full_like(label, level)
            found.append((take(delta, anchor), prior[anchor], score, label))
        delta, prior, score, label = (
            torch.cat(parts, dim=1) for parts in zip(*found, strict=True)
        )
        boxes = _decode(head, prior, delta, size)
        least = cfg.get('min_bbox_size', -1)
        if least >= 0:
            wide = (boxes[..., 2:] - boxes[..., :2] > least).all(-1)
            score = torch.where(wide, score, torch.full_like(score, -1.0))
        return boxes, score, label

    def _choose(self, candidates: tuple, cfg) -> tuple:
        """Suppress and keep as a config says."""
        return suppress(
            *candidates,
            cfg.nms.iou_threshold,
            cfg.get('score_thr', 0.0),
            cfg.max_per_img,
            self.fixed_count,
        )


class OneStageDetector(Detector):
    """RetinaNet, SSD and their like: anchors, no other score."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        cls_scores, bbox_preds = self.head(self._maps(x))
        candidates = self._dense(
            cls_scores, bbox_preds, self.size_of(x), False
        )
        found = self._choose(candidates, self.head.test_cfg)
        return *found, *cls_scores, *bbox_preds


class MaskRCNN(Detector):
    """Mask R-CNN and Faster R-CNN."""

    def __init__(self, model: nn.Module, *args, **kwargs):
        head = model.roi_head
        right = type(head) is StandardRoIHead and all(
            _samples_plainly(getattr(head, name, None))
            for name in ('bbox_roi_extractor', 'mask_roi_extractor')
        )
        _check(head if not right else head.bbox_head, head.test_cfg, right)
        super().__init__(model, *args, **kwargs)
        self.inner_names += STAGES

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        roi_head, size = self.model.roi_head, self.size_of(x)
        feats = self._maps(x)
        cls_scores, bbox_preds = self.head(feats)
        candidates = self._dense(cls_scores, bbox_preds, size, True)
        proposals, scores, levels = self._choose(
            candidates, self.head.test_cfg
        )
        pooled = _extract(roi_head.bbox_roi_extractor, feats, proposals)
        if roi_head.with_shared_head:
            pooled = roi_head.shared_head(pooled)
        roi_cls, roi_reg = roi_head.bbox_head(pooled)
        found = self._choose(
            self._classify(roi_cls, roi_reg, proposals, levels >= 0, size),
            roi_head.test_cfg,
        )
        if roi_head.with_mask:
            found += (self._mask(feats, found[0], found[2]),)
        inner = proposals, scores, roi_cls, roi_reg
        return *found, *cls_scores, *bbox_preds, *inner

    def _classify(self, scores, deltas, proposals, there, size) -> tuple:
        """Return a box, score and label for every proposal and class."""
        head = self.model.roi_head.bbox_head
        batch, count = proposals.shape[:2]
        classes = head.num_classes
        scores = torch.softmax(scores, dim=-1)[:, :-1]
        scores = scores.reshape(batch, count, classes)
        scores = torch.where(
            there[..., None], scores, torch.full_like(scores, -1.0)
        )
        kinds = 1 if head.reg_class_agnostic else classes
        deltas = deltas.reshape(batch, -1, 4)
        priors = proposals[:, :, None].expand(-1, -1, kinds, -1)
        boxes = _decode(head, priors, deltas, size)
        if head.reg_class_agnostic:
            boxes = boxes[:, :, None].expand(-1, -1, classes, -1)
            boxes = boxes.reshape(batch, -1, 4)
        labels = torch.arange(classes, device=boxes.device)
        labels = labels.expand(batch, count, -1)
        return boxes, scores.flatten(1), labels.reshape(batch, -1)

    def _mask(self, feats, boxes, labels) -> Tensor:
        """Return the mask of each box's own class."""
        roi_head = self.model.roi_head
        pooled = _extract(roi_head.mask_roi_extractor, feats, boxes)
        masks = roi_head.mask_head(pooled).sigmoid()
        return masks_of(roi_head.mask_head, masks, labels)


def dense_head(model: nn.Module) -> nn.Module:
    """Return the head that looks at every anchor, of proposals or boxes."""
    return model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head


def probabilities(head: nn.Module, scores: Tensor) -> Tensor:
    """Turn a level's (batch, n, H, W) into (batch, anchors, classes)."""
    scores = scores.permute(0, 2, 3, 1)
    scores = scores.reshape(scores.shape[0], -1, head.cls_out_channels)
    if head.use_sigmoid_cls:
        return scores.sigmoid()
    return scores.softmax(-1)[..., :-1]


def masks_of(head: nn.Module, masks: Tensor, labels: Tensor) -> Tensor:
    """Take (*labels.shape, H, W) from masks (n, classes, H, W)."""
    if not head.class_agnostic:
        place = labels.clamp(min=0).reshape(-1, 1, 1, 1)
        masks = masks.gather(1, place.expand(-1, -1, *masks.shape[2:]))
    return masks.reshape(*labels.shape, *masks.shape[2:])


def rois_of(boxes: Tensor) -> Tensor:
    """Return (batch * n, 5), image and box, of boxes (batch, n, 4)."""
    batch, count = boxes.shape[:2]
    image = torch.arange(batch, device=boxes.device).to(boxes.dtype)
    image = image.reshape(-1, 1, 1).expand(-1, count, -1)
    return torch.cat((image, boxes), dim=-1).reshape(-1, 5)


def _extract(extractor: nn.Module, feats, boxes: Tensor) -> Tensor:
    """Pool each of (batch, n, 4) boxes from the level of its size."""
    rois = rois_of(boxes)
    layers = extractor.roi_layers
    level_of = extractor.map_roi_levels(rois, len(layers))
    pooled, order = [], []
    for level, layer in enumerate(layers):
        at = (level_of == level).nonzero().flatten()
        order.append(at)
        pooled.append(
            # mmcv's own has no symbol; both sample alike.
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
    """Turn (batch, n, 4) deltas into boxes within the image."""
    boxes = head.bbox_coder.decode(prior.reshape(-1, 4), delta.reshape(-1, 4))
    # Sides are numbers or, of a free size, what the tracer follows.
    height, width = (torch.as_tensor(side).to(boxes.dtype) for side in size)
    most = torch.stack((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), most).reshape(delta.shape)


def _check(head: nn.Module, cfg, right: bool = True) -> None:
    """Refuse a head that predicts by other rules."""
    if not right or hasattr(head, 'atss_centerness'):
        why = (
            'anchor heads such as RetinaHead, SSDHead and RPNHead can be, and '
            'StandardRoIHead with SingleRoIExtractor and aligned RoIAlign'
        )
    elif type(head.bbox_coder) is not DeltaXYWHBBoxCoder:
        why = f'its boxes are coded by {type(head.bbox_coder).__name__}'
    elif cfg.nms.get('type', 'nms') != 'nms' or cfg.nms.get('class_agnostic'):
        why = f'plain nms within each class can be, got nms={dict(cfg.nms)}'
    else:
        return
    raise ValueError(f'{type(head).__name__} cannot be exported: {why}.')


def _samples_plainly(extractor: nn.Module | None) -> bool:
    """Tell whether RoIs are pooled as :func:`_extract` does."""
    return extractor is None or (
        type(extractor) is SingleRoIExtractor
        and all(
            layer.aligned and layer.pool_mode == 'avg'
            for layer in extractor.roi_layers
        )
    )


def wrap_detector(model: nn.Module, *args, **kwargs) -> Detector:
    """Choose the form in which a detector is traced.

    Args:
        model (nn.Module): Detector of MMDetection.
        *args: Arguments of :class:`Network` behind the model.
        **kwargs: Arguments of :class:`Detector`.

    Returns:
        Detector: The network to trace.

    Raises:
        ValueError: The detector is of another kind.
    """
    if isinstance(model, TwoStageDetector):
        return MaskRCNN(model, *args, **kwargs)
    if isinstance(model, SingleStageDetector):
        return OneStageDetector(model, *args, **kwargs)
    raise ValueError(
        f'{type(model).__name__} cannot be exported; one-stage detectors '
        'with anchors, Faster R-CNN and Mask R-CNN can.'
    )

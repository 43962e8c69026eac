"""Detectors of MMDetection with decoding and suppression inside."""

import torch
import torch.nn.functional as F
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from torch import Tensor, nn

from .boxes import pool, suppress, take, top_k
from .networks import PROPOSALS, Network
from .supported import check_dense, check_roi_head


class Detector(Network):
    """Boxes, scores and labels; masks where the model predicts them.

    Boxes are (batch, k, 4) in pixels of the picture that went in, scores and
    labels (batch, k), the best first; rows beyond a picture's boxes have label
    -1. Masks (batch, k, H, W) are probabilities within the box.

    Args:
        divisor (int): Sides are padded with zeros to a multiple of it.
        fixed_count (bool): Give as many rows as the config keeps at most,
            rather than those of the fullest picture of the batch.
    """

    def __init__(self, *args, divisor: int, fixed_count: bool):
        super().__init__(*args)
        self.divisor, self.fixed_count = divisor, fixed_count
        self.output_names = ('boxes', 'scores', 'labels')
        if getattr(self.model, 'with_mask', False):
            self.output_names += ('masks',)
        count = {} if fixed_count else {1: 'count'}
        self.dynamic = (count,) * len(self.output_names)

    def _pad(self, x: Tensor) -> Tensor:
        """Pad right and bottom, as MMDetection's data preprocessor does."""
        height, width = self.size_of(x)
        right, bottom = (
            (self.divisor - side % self.divisor) % self.divisor
            for side in (width, height)
        )
        if self.fixed_size and not (right or bottom):
            return x
        return F.pad(x, (0, right, 0, bottom))

    def _dense(
        self, head: nn.Module, feats, size, per_level: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode the best anchors of every level of a dense head."""
        cls_scores, bbox_preds = head(feats)
        cfg = head.test_cfg
        classes = head.num_classes
        threshold = cfg.get('score_thr', 0)
        priors = head.prior_generator.grid_priors(
            [score.shape[-2:] for score in cls_scores],
            dtype=bbox_preds[0].dtype,
            device=bbox_preds[0].device,
        )
        found = []
        for level, (score, delta, prior) in enumerate(
            zip(cls_scores, bbox_preds, priors, strict=True)
        ):
            batch = score.shape[0]
            score = score.permute(0, 2, 3, 1)
            score = score.reshape(batch, -1, head.cls_out_channels)
            delta = delta.permute(0, 2, 3, 1).reshape(batch, -1, 4)
            if head.use_sigmoid_cls:
                score = score.sigmoid()
            else:
                score = score.softmax(-1)[..., :-1]
            score = score.flatten(1)  # (batch, anchors * classes)
            if threshold > 0:
                score = torch.where(
                    score > threshold, score, torch.full_like(score, -1.0)
                )
            score, place = top_k(score, _nms_pre(cfg))
            anchor = torch.div(place, classes, rounding_mode='trunc')
            label = place - anchor * classes
            if per_level:
                label = torch.full_like(label, level)
            found.append((take(delta, anchor), prior[anchor], score, label))
        delta, prior, score, label = (
            torch.cat(parts, dim=1) for parts in zip(*found, strict=True)
        )
        boxes = self._decode(head, prior, delta, size)
        least = cfg.get('min_bbox_size', -1)
        if least >= 0:
            wide = (boxes[..., 2:] - boxes[..., :2] > least).all(-1)
            score = torch.where(wide, score, torch.full_like(score, -1.0))
        return boxes, score, label

    def _decode(self, head, prior: Tensor, delta: Tensor, size) -> Tensor:
        """Turn (batch, n, 4) deltas into boxes within the picture."""
        boxes = head.bbox_coder.decode(
            prior.reshape(-1, 4), delta.reshape(-1, 4)
        )
        boxes = boxes.reshape(delta.shape)
        height, width = size
        return torch.stack(
            (
                _within(boxes[..., 0], width),
                _within(boxes[..., 1], height),
                _within(boxes[..., 2], width),
                _within(boxes[..., 3], height),
            ),
            dim=-1,
        )


class OneStageDetector(Detector):
    """RetinaNet, SSD and their like: anchors, no other score."""

    def __init__(self, model: nn.Module, *args, **kwargs):
        check_dense(model.bbox_head)
        super().__init__(model, *args, **kwargs)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        head, size = self.model.bbox_head, self.size_of(x)
        feats = self.model.extract_feat(self._pad(x))
        boxes, scores, labels = self._dense(head, feats, size, False)
        cfg = head.test_cfg
        return suppress(
            boxes,
            scores,
            labels,
            cfg.nms.iou_threshold,
            cfg.get('score_thr', 0),
            cfg.max_per_img,
            self.fixed_count,
        )


class MaskRCNN(Detector):
    """Mask R-CNN and Faster R-CNN."""

    def __init__(self, model: nn.Module, *args, **kwargs):
        check_dense(model.rpn_head)
        check_roi_head(model.roi_head)
        super().__init__(model, *args, **kwargs)
        self.inner_names = PROPOSALS
        count = {} if self.fixed_count else {1: 'proposal_count'}
        self.dynamic += (count,) * len(PROPOSALS)

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        roi_head, size = self.model.roi_head, self.size_of(x)
        feats = self.model.extract_feat(self._pad(x))
        inner = proposals, _, levels = self._propose(feats, size)
        boxes, scores, labels = self._classify(
            roi_head, feats, proposals, levels >= 0, size
        )
        cfg = roi_head.test_cfg
        boxes, scores, labels = suppress(
            boxes,
            scores,
            labels,
            cfg.nms.iou_threshold,
            cfg.score_thr,
            cfg.max_per_img,
            self.fixed_count,
        )
        if not roi_head.with_mask:
            return boxes, scores, labels, *inner
        masks = self._mask(roi_head, feats, boxes, labels)
        return boxes, scores, labels, masks, *inner

    def _propose(self, feats, size) -> tuple[Tensor, Tensor, Tensor]:
        """Return proposals (batch, p, 4), scores, and levels or -1."""
        head = self.model.rpn_head
        boxes, scores, levels = self._dense(head, feats, size, True)
        cfg = head.test_cfg
        return suppress(
            boxes,
            scores,
            levels,
            cfg.nms.iou_threshold,
            0.0,
            cfg.max_per_img,
            self.fixed_count,
        )

    def _classify(self, roi_head, feats, proposals, there, size):
        """Return a box, score and label for every proposal and class."""
        head = roi_head.bbox_head
        batch, count = proposals.shape[:2]
        pooled = _extract(roi_head.bbox_roi_extractor, feats, proposals)
        if roi_head.with_shared_head:
            pooled = roi_head.shared_head(pooled)
        scores, deltas = head(pooled)
        classes = head.num_classes
        scores = torch.softmax(scores, dim=-1)[:, :-1]
        scores = scores.reshape(batch, count, classes)
        scores = torch.where(
            there[..., None], scores, torch.full_like(scores, -1.0)
        )
        kinds = 1 if head.reg_class_agnostic else classes
        deltas = deltas.reshape(batch, -1, 4)
        priors = proposals[:, :, None].expand(-1, -1, kinds, -1)
        boxes = self._decode(head, priors, deltas, size)
        if head.reg_class_agnostic:
            boxes = boxes[:, :, None].expand(-1, -1, classes, -1)
            boxes = boxes.reshape(batch, -1, 4)
        labels = torch.arange(classes, device=boxes.device)
        labels = labels.expand(batch, count, -1)
        return boxes, scores.flatten(1), labels.reshape(batch, -1)

    def _mask(self, roi_head, feats, boxes, labels) -> Tensor:
        """Return the mask of each box's own class."""
        batch, count = labels.shape[:2]
        pooled = _extract(roi_head.mask_roi_extractor, feats, boxes)
        masks = roi_head.mask_head(pooled).sigmoid()  # (n, classes, H, W)
        if not roi_head.mask_head.class_agnostic:
            place = labels.clamp(min=0).reshape(-1, 1, 1, 1)
            place = place.expand(-1, -1, *masks.shape[2:])
            masks = masks.gather(1, place)
        return masks.reshape(batch, count, *masks.shape[2:])


def _extract(extractor: nn.Module, feats, boxes: Tensor) -> Tensor:
    """Pool each of (batch, n, 4) boxes from the level of its size."""
    batch, count = boxes.shape[:2]
    picture = torch.arange(batch, device=boxes.device).to(boxes.dtype)
    picture = picture.reshape(-1, 1, 1).expand(-1, count, -1)
    rois = torch.cat((picture, boxes), dim=-1).reshape(-1, 5)
    layers = extractor.roi_layers
    level_of = extractor.map_roi_levels(rois, len(layers))
    pooled, order = [], []
    for level, layer in enumerate(layers):
        at = (level_of == level).nonzero().flatten()
        order.append(at)
        pooled.append(
            pool(
                feats[level],
                rois[at],
                layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
            )
        )
    order = torch.cat(order)
    back = torch.zeros_like(order).scatter(
        0, order, torch.arange(order.shape[0], device=order.device)
    )
    return torch.cat(pooled)[back]


def _within(x: Tensor, limit: int | Tensor) -> Tensor:
    """Cut coordinates to 0 and a side, which a tracer gives as tensor."""
    if isinstance(limit, Tensor):
        limit = limit.to(x.dtype)
    else:
        limit = x.new_tensor(limit)
    return torch.minimum(x.clamp(min=0), limit)


def _nms_pre(cfg) -> int:
    """Return how many anchors of a level are looked at."""
    count = cfg.get('nms_pre', -1)
    return count if count > 0 else torch.iinfo(torch.int32).max


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

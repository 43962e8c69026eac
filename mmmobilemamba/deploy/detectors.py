"""Detectors of MMDetection with decoding and suppression inside."""

from collections.abc import Iterable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RetinaHead, RPNHead, SSDHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torchvision.ops import nms

from .arguments import ExportOptions
from .networks import Comparison, Network


class Detector(Network):
    """One stage with anchors, Faster R-CNN or Mask R-CNN.

    Boxes are (1, k, 4) in pixels of the image that went in, scores and labels
    (1, k), the best first; an image without any has one row of label -1.
    Masks (1, k, H, W) are probabilities within the box.
    Raises ValueError for one that predicts by rules that are not written here.
    """

    def __init__(self, model: nn.Module, options: ExportOptions):
        if options.dynamic_batch:
            raise ValueError('A detector takes one image, no free batch.')
        _check(model)
        super().__init__(model, options)
        for module in self.model.modules():
            if isinstance(module, SingleRoIExtractor):
                module.forward = partial(_extract, module)
            elif isinstance(module, RoIAlign):
                # mmcv's own operator has no symbol; both sample alike.
                module.use_torchvision = True

    def dense(
        self, model: nn.Module, x: Tensor
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the maps of the features, and by name of the dense head."""
        divisor = self.settings['pad_divisor']
        height, width = self.size_of(x)
        # right and bottom, as MMDetection does
        pads = [(divisor - s % divisor) % divisor for s in (width, height)]
        if self.options.dynamic_size or any(pads):
            x = F.pad(x, (0, pads[0], 0, pads[1]))
        feats = model.extract_feat(x)
        found = zip(('_cls', '_reg'), _dense_head(model)(feats), strict=True)
        return feats, {
            f'{kind}{level}': value
            for kind, values in found
            for level, value in enumerate(values)
        }

    def compute(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        size, head = self.size_of(x), _dense_head(model)
        feats, inner = self.dense(model, x)
        candidates = _decode_dense(head, inner.values(), size)
        found = suppress(*candidates, head.test_cfg)
        if hasattr(model, 'roi_head'):
            head = model.roi_head
            proposals, scores, _ = found
            rois = head._bbox_forward(feats, _rois_of(proposals))
            logits, deltas = rois['cls_score'], rois['bbox_pred']
            inner.update(_proposals=proposals, _objectness=scores)
            inner.update(_roi_cls=logits, _roi_reg=deltas)
            boxes = _decode(head.bbox_head, proposals, deltas, size)
            classes = head.bbox_head.num_classes
            labels = torch.arange(classes).expand(proposals.shape[0], -1)
            there = (scores > 0)[:, None]
            scores = (logits.softmax(-1)[:, :-1] * there).flatten()
            found = suppress(boxes, scores, labels.flatten(), head.test_cfg)
        outputs = dict(zip(('boxes', 'scores', 'labels'), found, strict=True))
        if model.with_mask:
            outputs['masks'] = _masks(head, feats, found[0], found[2])
        return {key: value[None] for key, value in outputs.items()} | inner

    @torch.no_grad()
    def compare(self, model: nn.Module, x: Tensor, result: Comparison) -> None:
        """Compare what comes before each choice, and look the choices up.

        Where two scores are equal up to rounding, two programs may choose
        different boxes, and all that follows differs. So the second stage is
        compared on the proposals of the file, and the masks on its boxes.
        """
        size, head = self.size_of(x), _dense_head(model)
        feats, wanted = self.dense(model, x)
        for name, value in wanted.items():
            result.add(name, value)
        file = {k: torch.from_numpy(value) for k, value in result.got.items()}
        # Decoding multiplies what differs by the sides of large anchors, so
        # that boxes are looked up among those of the file's own maps.
        levels = _anchors(head, [file[name] for name in wanted])
        scores, deltas, priors = map(torch.cat, zip(*levels, strict=True))
        boxes = head.bbox_coder.decode(priors, deltas, max_shape=size)
        boxes = boxes[:, None]  # one for all classes
        least = head.test_cfg.get('score_thr', 0.0)
        if hasattr(model, 'roi_head'):
            proposals, objectness = file['_proposals'], file['_objectness']
            labels = -(objectness <= 0).long()
            found = proposals, objectness, labels
            _look_up(result, found, boxes, scores, least)
            head, rois = model.roi_head, _rois_of(proposals)
            given = head._bbox_forward(feats, rois)
            result.add('_roi_cls', given['cls_score'])
            result.add('_roi_reg', given['bbox_pred'])
            boxes = head.bbox_head.bbox_coder.decode(
                proposals, file['_roi_reg'], max_shape=size
            ).unflatten(1, (-1, 4))
            scores = file['_roi_cls'].softmax(-1)[:, :-1]
            least = head.test_cfg.score_thr
        found = tuple(file[name][0] for name in ('boxes', 'scores', 'labels'))
        _look_up(result, found, boxes, scores, least)
        if model.with_mask:
            masks = _masks(head, feats, found[0], found[2])
            result.add('masks', masks[None])
        result.boxes = int((found[2] >= 0).sum())


def _look_up(
    result: Comparison,
    found: tuple[Tensor, ...],
    boxes: Tensor,
    scores: Tensor,
    least: float,
) -> None:
    """Look boxes up among all that the model predicts, and the best first.

    Two boxes that overlap may suppress each other in either order where they
    score alike, but the best score of all stays.
    """
    shares, tolerance = found[1], result.tolerance
    boxes = boxes.expand(-1, scores.shape[1], -1)
    for place, share, label in zip(*found, strict=True):
        alike = (scores[:, label] - share).abs() <= tolerance
        away = (boxes[:, label] - place).abs().amax(-1)
        near = away <= tolerance * max(result.size)
        if label >= 0 and not (alike & near).any():
            result.problems.append('a box is none that the model predicts')
    # A box may have no area, and is left out then.
    area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    best = (scores * area).max()
    if best > max(least, shares[0]) + tolerance or (shares.diff() > 0).any():
        result.problems.append('the best box is not the first')


def _check(model: nn.Module) -> None:
    """Refuse a detector that chooses by other rules."""
    heads = [_dense_head(model)]
    if hasattr(model, 'roi_head') or isinstance(heads[0], RPNHead):
        heads.append(getattr(model, 'roi_head', None))
    for head in heads:
        rule = (getattr(head, 'test_cfg', None) or {}).get('nms', {})
        known = isinstance(head, (RetinaHead, SSDHead, RPNHead))
        known = known or type(head) is StandardRoIHead
        plain = rule.get('type', 'nms') == 'nms'
        if not known or not plain or rule.get('class_agnostic'):
            raise ValueError(
                f'{type(head or model).__name__} with nms={dict(rule)} cannot '
                'be exported; RetinaHead, SSDHead, and RPNHead followed by '
                'StandardRoIHead, with plain nms within each class can.'
            )


def _dense_head(model: nn.Module) -> nn.Module | None:
    """Return the head that looks at every anchor, of proposals or boxes."""
    return getattr(model, 'rpn_head', getattr(model, 'bbox_head', None))


def _anchors(
    head: nn.Module, maps: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield scores (n, classes), deltas (n, 4), priors (n, 4) of a level."""
    maps = list(maps)
    cls, reg = maps[: len(maps) // 2], maps[len(maps) // 2 :]
    sizes = [value.shape[-2:] for value in cls]
    priors = head.prior_generator.grid_priors(sizes, device=cls[0].device)
    for scores, deltas, prior in zip(cls, reg, priors, strict=True):
        scores = scores.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels)
        if head.use_sigmoid_cls:
            scores = scores.sigmoid()
        else:
            scores = scores.softmax(-1)[:, :-1]
        yield scores, deltas.permute(0, 2, 3, 1).reshape(-1, 4), prior


def _decode_dense(
    head: nn.Module, maps: Iterable[Tensor], size: tuple
) -> tuple[Tensor, ...]:
    """Decode the best anchors of every level; label proposals by it."""
    cfg, found = head.test_cfg, []
    count = cfg.get('nms_pre', -1)
    count = count if count > 0 else torch.iinfo(torch.int32).max
    for level, (score, delta, prior) in enumerate(_anchors(head, maps)):
        score = score.flatten()
        there = torch.as_tensor(score.shape[0])
        most = torch.minimum(there, torch.tensor(count))
        score, place = torch.topk(score, most)
        anchor = torch.div(place, head.num_classes, rounding_mode='trunc')
        label = place - anchor * head.num_classes
        if isinstance(head, RPNHead):
            label = torch.full_like(label, level)
        found.append((prior[anchor], delta[anchor], score, label))
    prior, delta, score, label = map(torch.cat, zip(*found, strict=True))
    boxes = _decode(head, prior, delta, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    wide = (sides > cfg.get('min_bbox_size', -1)).all(-1)
    return boxes, torch.where(wide, score, torch.full_like(score, -1.0)), label


def _decode(head: nn.Module, prior: Tensor, delta: Tensor, size) -> Tensor:
    """Turn (n, 4) and (n, 4 classes) into boxes (n classes, 4) within."""
    boxes = head.bbox_coder.decode(prior, delta).reshape(-1, 4)
    # Sides are numbers or, of a free size, what the tracer follows.
    height, width = (torch.as_tensor(side).to(boxes.dtype) for side in size)
    most = torch.stack((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), most)


def _rois_of(boxes: Tensor) -> Tensor:
    """Put the number of the image, 0, before boxes (n, 4)."""
    return torch.cat((torch.zeros_like(boxes[:, :1]), boxes), dim=1)


def _extract(extractor: nn.Module, feats, rois: Tensor) -> Tensor:
    """Pool each of rois (n, 5) from the level of its size, none skipped."""
    layers, pooled, order = extractor.roi_layers, [], []
    level_of = extractor.map_roi_levels(rois, len(layers))
    for level, layer in enumerate(layers):
        at = (level_of == level).nonzero().flatten()
        order.append(at)
        pooled.append(layer(feats[level], rois[at]))
    return torch.cat(pooled)[torch.cat(order).argsort()]


def _masks(head: nn.Module, feats, boxes: Tensor, labels: Tensor) -> Tensor:
    """Predict masks (n, H, W) of boxes (n, 4) for their labels (n,)."""
    masks = head._mask_forward(feats, _rois_of(boxes))['mask_preds'].sigmoid()
    place = labels.clamp(min=0).reshape(-1, 1, 1, 1)
    return masks.gather(1, place.expand(-1, -1, *masks.shape[2:]))[:, 0]


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, cfg: ConfigDict
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress overlapping boxes within each label; keep the best.

    Takes boxes (n, 4) as left, top, right, bottom in pixels, scores (n,),
    int64 labels (n,) and a head's test_cfg, and returns those that are left,
    the best first. Without any it is one row of 0, 0 and -1, as runtimes
    stumble over empty tensors.
    """
    at = (scores > cfg.get('score_thr', 0.0)).nonzero().flatten()
    boxes, scores, labels = boxes[at], scores[at], labels[at]
    nothing = boxes.new_zeros(1, 4)
    # As mmcv: boxes of different labels are moved so that none overlap.
    span = torch.cat((boxes, nothing)).max() + 1
    moved = boxes + labels[:, None].to(boxes.dtype) * span
    kept = nms(moved, scores, cfg.nms.iou_threshold)[: cfg.max_per_img]
    rows = torch.as_tensor(kept.shape[0]).clamp(min=1)
    return (
        torch.cat((boxes[kept], nothing))[:rows],
        # Some runtimes round a sigmoid to more than 1.
        torch.cat((scores[kept].clamp(0, 1), nothing[0, :1]))[:rows],
        torch.cat((labels[kept], labels.new_full((1,), -1)))[:rows],
    )

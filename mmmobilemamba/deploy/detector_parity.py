"""Comparing an exported detector with the model that it came from.

Where two scores are equal up to rounding, two programs may choose different
boxes, and all that follows differs. So what the heads give is compared before
anything is chosen, and the second stage on the proposals of the file.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detectors import dense_head, masks_of, probabilities, rois_of
from .networks import preprocess_settings
from .parity import Comparison


def compare_detector(
    model: nn.Module,
    got: dict[str, np.ndarray],
    image: Tensor,
    tolerance: float,
    result: Comparison,
) -> None:
    """Compare an exported detector with its model; add to ``result``."""
    divisor = preprocess_settings(model)['pad_divisor']
    size = height, width = image.shape[2:]
    image = F.pad(image, (0, -width % divisor, 0, -height % divisor))
    feats = model.extract_feat(image)
    head = dense_head(model)
    # Decoding multiplies what differs by the sides of large anchors, so that
    # boxes are looked up among those of the file's own maps.
    maps = dict(cls=[], reg=[])
    for kind, values in zip(maps, head(feats), strict=True):
        for i, value in enumerate(values):
            name = f'dense_{kind}{i}'
            result.add(name, got[name], value, tolerance)
            maps[kind].append(torch.from_numpy(got[name]))
    boxes, shares = _decoded_anchors(head, *maps.values(), size)
    least = head.test_cfg.get('score_thr', 0.0)
    if hasattr(model, 'roi_head'):
        labels = np.where(got['proposal_scores'] > 0, 0, -1)
        found = (got['proposals'], got['proposal_scores'], labels)
        _check_found(result, found, boxes, shares, least, tolerance)
        boxes, shares = _compare_second_stage(
            model.roi_head, got, feats, size, tolerance, result
        )
        least = model.roi_head.test_cfg.score_thr
    found = tuple(got[name][0] for name in ('boxes', 'scores', 'labels'))
    _check_found(result, found, boxes, shares, least, tolerance)
    result.boxes = int((found[2] >= 0).sum())


def _decoded_anchors(head, scores, deltas, size) -> tuple[Tensor, Tensor]:
    """Return the boxes (n, 1, 4) and scores (n, classes) of all anchors."""
    priors = head.prior_generator.grid_priors(
        [score.shape[-2:] for score in scores], device=scores[0].device
    )
    deltas = torch.cat([d.permute(0, 2, 3, 1).reshape(-1, 4) for d in deltas])
    boxes = head.bbox_coder.decode(
        torch.cat(priors), deltas, max_shape=tuple(size)
    )
    shares = torch.cat([probabilities(head, score) for score in scores])
    return boxes[:, None], shares


def _compare_second_stage(
    roi_head, got, feats, size, tolerance: float, result: Comparison
) -> tuple[Tensor, Tensor]:
    """Run it on the file's proposals; return its boxes and scores."""
    rois = rois_of(torch.from_numpy(got['proposals']))
    given = roi_head._bbox_forward(feats, rois)
    result.add('roi_cls', got['roi_cls'], given['cls_score'], tolerance)
    result.add('roi_reg', got['roi_reg'], given['bbox_pred'], tolerance)
    scores, deltas = map(torch.from_numpy, (got['roi_cls'], got['roi_reg']))
    if roi_head.with_mask:
        places = rois_of(torch.from_numpy(got['boxes'][0]))
        masks = roi_head._mask_forward(feats, places)['mask_preds'].sigmoid()
        labels = torch.from_numpy(got['labels'][0])
        masks = masks_of(roi_head.mask_head, masks, labels)
        result.add('masks', got['masks'][0], masks, tolerance)
    coder = roi_head.bbox_head.bbox_coder
    boxes = coder.decode(rois[:, 1:], deltas, max_shape=tuple(size))
    return boxes.reshape(len(rois), -1, 4), scores.softmax(-1)[:, :-1]


def _check_found(
    result: Comparison,
    found: tuple[np.ndarray, ...],
    boxes: Tensor,
    scores: Tensor,
    least: float,
    tolerance: float,
) -> None:
    """Look boxes up among all that the model predicts, and the best first.

    Two boxes that overlap may suppress each other in either order where they
    score alike, but the best score of all stays.
    """
    places, shares, labels = map(torch.from_numpy, found)
    there, wrong = labels >= 0, 0
    for place, share, label in zip(
        places[there], shares[there], labels[there], strict=True
    ):
        alike = (scores[:, label] - share).abs() <= tolerance
        column = min(int(label), boxes.shape[1] - 1)
        away = (boxes[alike, column] - place).abs().amax(-1)
        wrong += not (away <= tolerance * max(result.size)).any()
    if wrong:
        result.problems.append(
            f'{wrong} boxes are none that the model predicts'
        )
    # A box may have no area, and is left out then.
    area = (boxes[..., 2:] - boxes[..., :2] > 0).all(-1)
    best = (scores * area).max()
    if best > least + tolerance and not (
        shares[0] >= best - tolerance and (shares.diff() <= 0).all()
    ):
        result.problems.append('the best box is not the first')

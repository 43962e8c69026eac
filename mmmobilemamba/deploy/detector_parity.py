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
    """Compare an exported detector with its model on a batch of images.

    Args:
        model (nn.Module): Detector of MMDetection as it is evaluated.
        got (dict[str, np.ndarray]): Outputs of the exported network by name,
            with those of its heads.
        image (Tensor): Normalised images (batch, channels, H, W).
        tolerance (float): Largest relative error, of places as a share of
            the longer side.
        result (Comparison): Takes what is found.
    """
    divisor = preprocess_settings(model)['pad_divisor']
    size = height, width = image.shape[2:]
    image = F.pad(image, (0, -width % divisor, 0, -height % divisor))
    feats = model.extract_feat(image)
    head = dense_head(model)
    scores, deltas = head(feats)
    for kind, maps in (('cls', scores), ('reg', deltas)):
        for i, value in enumerate(maps):
            name = f'dense_{kind}{i}'
            result.add(name, got[name], value, tolerance)
    boxes, shares = _decoded_anchors(head, scores, deltas, size)
    least = head.test_cfg.get('score_thr', 0.0)
    if hasattr(model, 'roi_head'):
        labels = np.where(got['proposal_scores'] > 0, 0, -1)
        found = (got['proposals'], got['proposal_scores'], labels)
        _check_found(result, found, boxes, shares, least, tolerance)
        boxes, shares = _compare_second_stage(
            model.roi_head, got, feats, size, tolerance, result
        )
        least = model.roi_head.test_cfg.score_thr
    found = (got['boxes'], got['scores'], got['labels'])
    _check_found(result, found, boxes, shares, least, tolerance)
    result.boxes = int((got['labels'] >= 0).sum())


def _decoded_anchors(head, scores, deltas, size) -> tuple[Tensor, Tensor]:
    """Return the boxes (batch, n, 1, 4) and scores (batch, n, classes)."""
    priors = head.prior_generator.grid_priors(
        [score.shape[-2:] for score in scores], device=scores[0].device
    )
    batch = len(scores[0])
    deltas = torch.cat(
        [d.permute(0, 2, 3, 1).reshape(batch, -1, 4) for d in deltas], 1
    )
    shares = torch.cat([probabilities(head, score) for score in scores], 1)
    priors = torch.cat(priors).expand(batch, -1, -1)
    boxes = head.bbox_coder.decode(priors, deltas, max_shape=tuple(size))
    return boxes[:, :, None], shares


def _compare_second_stage(
    roi_head, got, feats, size, tolerance: float, result: Comparison
) -> tuple[Tensor, Tensor]:
    """Run it on the file's proposals; return its boxes and scores."""
    proposals = torch.from_numpy(got['proposals'])
    batch, count = proposals.shape[:2]
    rois = rois_of(proposals)
    given = roi_head._bbox_forward(feats, rois)
    for key, value in (
        ('cls', given['cls_score']),
        ('reg', given['bbox_pred']),
    ):
        result.add(f'roi_{key}', got[f'roi_{key}'], value, tolerance)
    if roi_head.with_mask:
        labels = torch.from_numpy(got['labels'])
        places = rois_of(torch.from_numpy(got['boxes']))
        masks = roi_head._mask_forward(feats, places)['mask_preds'].sigmoid()
        masks = masks_of(roi_head.mask_head, masks, labels)
        result.add('masks', got['masks'], masks, tolerance)
    boxes = roi_head.bbox_head.bbox_coder.decode(
        rois[:, 1:], given['bbox_pred'], max_shape=tuple(size)
    )
    shares = given['cls_score'].softmax(-1)[:, :-1]
    return (
        boxes.reshape(batch, count, -1, 4),
        shares.reshape(batch, count, -1),
    )


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
    for i in range(len(boxes)):
        places, shares, labels = (torch.from_numpy(f[i]) for f in found)
        there, wrong = labels >= 0, 0
        for place, share, label in zip(
            places[there], shares[there], labels[there], strict=True
        ):
            alike = (scores[i, :, label] - share).abs() <= tolerance
            column = min(int(label), boxes.shape[2] - 1)
            away = (boxes[i, alike, column] - place).abs().amax(-1)
            wrong += not (away <= tolerance * max(result.size)).any()
        if wrong:
            result.problems.append(
                f'{wrong} boxes are none that the model predicts'
            )
        # A box may have no area, and is left out then.
        area = (boxes[i, ..., 2:] - boxes[i, ..., :2] > 0).all(-1)
        best = (scores[i] * area).max()
        if best > least + tolerance and not (
            shares[0] >= best - tolerance and (shares.diff() <= 0).all()
        ):
            result.problems.append('the best box is not the first')

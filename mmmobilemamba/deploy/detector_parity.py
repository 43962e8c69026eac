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
    result: Comparison,
) -> None:
    """Compare an exported detector with its model; add to ``result``."""
    divisor = preprocess_settings(model)['pad_divisor']
    size = height, width = tuple(image.shape[2:])
    image = F.pad(image, (0, -width % divisor, 0, -height % divisor))
    feats = model.extract_feat(image)
    file = {name: torch.from_numpy(value) for name, value in got.items()}
    # Decoding multiplies what differs by the sides of large anchors, so that
    # boxes are looked up among those of the file's own maps.
    head = dense_head(model)
    scores, deltas = [], []
    for kind, own, maps in zip(
        ('cls', 'reg'), (scores, deltas), head(feats), strict=True
    ):
        for i, value in enumerate(maps):
            result.add(f'dense_{kind}{i}', got[f'dense_{kind}{i}'], value)
            own.append(file[f'dense_{kind}{i}'])
    priors = head.prior_generator.grid_priors(
        [score.shape[-2:] for score in scores], device=image.device
    )
    deltas = torch.cat([d.permute(0, 2, 3, 1).reshape(-1, 4) for d in deltas])
    boxes = head.bbox_coder.decode(torch.cat(priors), deltas, max_shape=size)
    boxes = boxes[:, None]  # one for all classes
    scores = torch.cat([probabilities(head, score) for score in scores])
    least = head.test_cfg.get('score_thr', 0.0)
    if hasattr(model, 'roi_head'):
        found = file['proposals'], file['proposal_scores']
        labels = -(found[1] <= 0).long()
        _check_found(result, (*found, labels), boxes, scores, least)
        head = model.roi_head
        rois = rois_of(file['proposals'])
        given = head._bbox_forward(feats, rois)
        result.add('roi_cls', got['roi_cls'], given['cls_score'])
        result.add('roi_reg', got['roi_reg'], given['bbox_pred'])
        if head.with_mask:
            places = rois_of(file['boxes'][0])
            masks = head._mask_forward(feats, places)['mask_preds'].sigmoid()
            masks = masks_of(head.mask_head, masks, file['labels'][0])
            result.add('masks', got['masks'][0], masks)
        boxes = head.bbox_head.bbox_coder.decode(
            rois[:, 1:], file['roi_reg'], max_shape=size
        ).reshape(len(rois), -1, 4)
        scores = file['roi_cls'].softmax(-1)[:, :-1]
        least = head.test_cfg.score_thr
    found = tuple(file[name][0] for name in ('boxes', 'scores', 'labels'))
    _check_found(result, found, boxes, scores, least)
    result.boxes = int((found[2] >= 0).sum())


def _check_found(
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
    places, shares, labels = found
    tolerance, there, wrong = result.tolerance, labels >= 0, 0
    for place, share, label in zip(
        places[there], shares[there], labels[there], strict=True
    ):
        alike = (scores[:, label] - share).abs() <= tolerance
        column = min(int(label), boxes.shape[1] - 1)
        away = (boxes[alike, column] - place).abs().amax(-1)
        wrong += not (away <= tolerance * max(result.size)).any()
    if wrong:
        text = f'{wrong} boxes are none that the model predicts'
        result.problems.append(text)
    # A box may have no area, and is left out then.
    area = (boxes[..., 2:] - boxes[..., :2] > 0).all(-1)
    best = (scores * area).max()
    if best > least + tolerance and not (
        shares[0] >= best - tolerance and (shares.diff() <= 0).all()
    ):
        result.problems.append('the best box is not the first')

"""Asking MMDetection what it predicts, and what it chose from."""

import os
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .box_parity import Boxes, Choice
from .networks import PROPOSALS


class HostDetector:
    """A detector of MMDetection on a batch of pictures.

    Args:
        model (nn.Module): Detector in evaluation mode.
        divisor (int): Sides are padded with zeros to a multiple of it.
        image (Tensor): Normalised pictures (batch, 3, H, W), taken as neither
            scaled nor padded.
    """

    def __init__(self, model: nn.Module, divisor: int, image: Tensor):
        self.model = model
        height, width = image.shape[2:]
        self.image = F.pad(image, (0, -width % divisor, 0, -height % divisor))
        shape = tuple(self.image.shape[2:])
        self.meta = dict(
            img_shape=(height, width),
            ori_shape=(height, width),
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=(1.0, 1.0),
        )

    def _samples(self) -> list[DetDataSample]:
        return [DetDataSample(metainfo=dict(self.meta)) for _ in self.image]

    def predict(self) -> list[InstanceData]:
        """Return what the model predicts of each picture."""
        samples = self.model.predict(
            self.image, self._samples(), rescale=False
        )
        return [sample.pred_instances for sample in samples]

    def dense_choice(
        self, tolerance: float
    ) -> list[tuple[InstanceData, Choice]]:
        """Return what the dense head keeps, and from what it chose it.

        Args:
            tolerance (float): Scores nearer than it tie.

        Returns:
            list[tuple]: Boxes that are kept, and the choice, per picture.
        """
        two_stage = hasattr(self.model, 'roi_head')
        head = self.model.rpn_head if two_stage else self.model.bbox_head
        scores, deltas = head(self.model.extract_feat(self.image))
        metas = [dict(self.meta)] * len(self.image)
        kept = head.predict_by_feat(scores, deltas, batch_img_metas=metas)
        cfg = head.test_cfg
        chosen = []
        for i in range(len(self.image)):
            limits, widest = _limits_of_levels(head, scores, i, tolerance)
            limits.append(cfg.get('score_thr', 0.0))
            every = head.predict_by_feat(
                [score[i : i + 1] for score in scores],
                [delta[i : i + 1] for delta in deltas],
                batch_img_metas=metas[:1],
                cfg=_keep_all(cfg, tolerance, None, nms_pre=widest),
            )
            chosen.append(_choice(every[0], cfg, limits))
        return list(zip(kept, chosen, strict=True))

    def second_stage(
        self, proposals: Sequence[Boxes], tolerance: float
    ) -> list[tuple[InstanceData, Choice]]:
        """Return what the second stage makes of proposals.

        Args:
            proposals (Sequence[Boxes]): Proposals of each picture.
            tolerance (float): Scores nearer than it tie.

        Returns:
            list[tuple]: Boxes that are kept, and the choice, per picture.
        """
        head = self.model.roi_head
        maps = self.model.extract_feat(self.image)
        given = [
            InstanceData(bboxes=p.places, scores=p.scores, labels=p.labels)
            for p in proposals
        ]
        kept = head.predict(maps, given, self._samples(), rescale=False)
        cfg = head.test_cfg
        every = head.predict_bbox(
            maps,
            [dict(self.meta)] * len(given),
            given,
            _keep_all(cfg, tolerance, -1),
        )
        return [
            (mine, _choice(all_, cfg, [cfg.score_thr]))
            for mine, all_ in zip(kept, every, strict=True)
        ]


def _choice(every: InstanceData, cfg, limits: list[float]) -> Choice:
    return Choice(
        as_boxes(every), cfg.nms.iou_threshold, tuple(limits), cfg.max_per_img
    )


def as_boxes(instances: InstanceData) -> Boxes:
    """Read the boxes of a prediction."""
    return Boxes(instances.bboxes, instances.scores, instances.labels)


def _keep_all(cfg, tolerance: float, no_limit: int | None, **changes):
    """Return settings that keep every box, and some below the threshold."""
    cfg = deepcopy(cfg)
    cfg.update(nms=None, max_per_img=no_limit, **changes)
    if 'score_thr' in cfg:
        cfg.score_thr = cfg.score_thr - tolerance
    return cfg


def _limits_of_levels(
    head: nn.Module, maps: Sequence[Tensor], i: int, tolerance: float
) -> tuple[list[float], int]:
    """Return the least score that each level looks at, and most ties.

    The second is how many scores of a level must be looked at so that none
    is left out which is equal to the least.
    """
    count = head.test_cfg.get('nms_pre', -1)
    limits, widest = [], count
    for scores in maps if count > 0 else ():
        scores = scores[i].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        if head.use_sigmoid_cls:
            scores = scores.sigmoid()
        else:
            scores = scores.softmax(-1)[:, :-1]
        scores = scores.flatten()
        if len(scores) > count:
            least = float(scores.topk(count).values[-1])
            limits.append(least)
            widest = max(widest, int((scores >= least - tolerance).sum()))
    return limits, widest


def run_with_proposals(
    path: str | os.PathLike, image: np.ndarray
) -> tuple[dict[str, np.ndarray], list[Boxes], list[Tensor]] | None:
    """Run an exported two-stage detector with its proposals given out.

    Args:
        path (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        image (np.ndarray): Pictures as the network takes them.

    Returns:
        tuple: Outputs by name, proposals of each picture, and their levels;
        None where the network has no proposals.
    """
    model = onnx.load(path)
    made = {name for node in model.graph.node for name in node.output}
    if not made.issuperset(PROPOSALS):
        return None
    names = [output.name for output in model.graph.output]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in PROPOSALS
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    names += PROPOSALS
    out = dict(zip(names, session.run(names, {'image': image}), strict=True))
    places, scores, levels = (torch.from_numpy(out.pop(k)) for k in PROPOSALS)
    proposals = [
        Boxes(place[there], score[there], torch.zeros_like(level[there]))
        for place, score, level, there in zip(
            places, scores, levels, levels >= 0, strict=True
        )
    ]
    return out, proposals, [level[level >= 0] for level in levels]

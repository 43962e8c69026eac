"""An exported network in the place of a model, for the hosts' evaluation."""

import os
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..registry import MODELS
from .arguments import KINDS
from .session import Session, read_exported


@MODELS.register_module()
class OnnxModel(BaseModel):
    """Predict with an exported network as a host's model does.

    Images come as the host's data set gives them and results go as the
    samples that its metrics read, so that a metric is that of the file.

    Args:
        path (str or PathLike): File of ``tools/deploy/export_onnx.py``.
        data_preprocessor (dict, optional): The host's. Defaults to None.
        test_cfg (dict, optional): Of a segmentor: with ``mode='slide'`` the
            network sees windows. Defaults to None, the whole image.
        runtime (str): See :class:`Session`. Defaults to ``'onnxruntime'``.
        threads (int, optional): See :class:`Session`. Defaults to None.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        runtime: str = 'onnxruntime',
        threads: int | None = None,
    ):
        session = Session(path, runtime, threads)
        about, outside = session.metadata, deepcopy(data_preprocessor)
        if outside and about['kind'] == 'classifier':
            outside.setdefault('type', 'ClsDataPreprocessor')
        if outside and about['kind'] == 'detector':
            outside['pad_size_divisor'] = 1
        if outside and about['preprocess']:  # that is inside
            swaps = {'bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'} & outside.keys()
            outside.update(dict.fromkeys(swaps, False), mean=None, std=None)
        super().__init__(outside)
        self.session, self.metadata = session, about
        self.test_cfg = ConfigDict(test_cfg or {})
        # The libraries ask the first parameter for a model's device.
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(
        self, inputs: Tensor, data_samples: list, mode: str = 'predict'
    ) -> list:
        """Predict images (batch, channels, H, W) into the host's samples."""
        add = getattr(self, f'_add_{self.metadata["kind"]}')
        return add(inputs.cpu(), data_samples)

    def _add_classifier(self, inputs: Tensor, samples: list) -> list:
        scores = self._run_each(inputs, 'scores')
        for sample, score in zip(samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax())
        return samples

    def _add_segmentor(self, inputs: Tensor, samples: list) -> list:
        from mmseg.models.segmentors import EncoderDecoder

        # What the host's own functions read of a model.
        like = SimpleNamespace(
            test_cfg=self.test_cfg,
            out_channels=self.metadata['num_outputs'],
            align_corners=self.metadata['align_corners'],
            decode_head=SimpleNamespace(threshold=self.metadata['threshold']),
            encode_decode=lambda x, _: self._run_each(x, 'logits'),
        )
        infer = EncoderDecoder.whole_inference
        if self.test_cfg.get('mode') == 'slide':
            infer = EncoderDecoder.slide_inference
        metas = [sample.metainfo for sample in samples]
        logits = infer(like, inputs, metas)
        return EncoderDecoder.postprocess_result(like, logits, samples)

    def _add_detector(self, inputs: Tensor, samples: list) -> list:
        for x, sample in zip(inputs, samples, strict=True):
            # Without what fills a batch of different sizes.
            height, width = sample.img_shape[:2]
            x = x[:, :height, :width]
            if size := self.metadata['size']:
                # Up to a fixed size, right and bottom; of a larger image the
                # session says what is wrong.
                pads = [max(m - n, 0) for m, n in zip(size, x.shape[1:])]
                x = F.pad(x, (0, pads[1], 0, pads[0]))
            out = self.session(x[None].numpy())
            there = out['labels'][0] >= 0
            found = {
                key: torch.from_numpy(value[0][there])
                for key, value in out.items()
            }
            limit = found['boxes'].new_tensor([width, height] * 2)
            boxes = torch.minimum(found['boxes'], limit)
            boxes = boxes / boxes.new_tensor(tuple(sample.scale_factor) * 2)
            result = InstanceData(
                bboxes=boxes, scores=found['scores'], labels=found['labels']
            )
            if 'masks' in found:
                size = sample.ori_shape[:2]
                least = self.metadata['mask_threshold']
                result.masks = paste_masks(found['masks'], boxes, size, least)
            sample.pred_instances = result
        return samples

    def _run_each(self, inputs: Tensor, name: str) -> Tensor:
        """Run images one by one and return one output of all."""
        found = [self.session(x[None].numpy())[name] for x in inputs]
        return torch.from_numpy(np.concatenate(found))


def paste_masks(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    """Put masks (n, H, W) within boxes onto an image, as MMDetection does."""
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head as host

    pasted = torch.zeros((len(masks), *size), dtype=torch.bool)
    for i, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        part, where = host._do_paste_mask(mask[None, None], box[None], *size)
        pasted[(i, *where)] = part[0] >= threshold
    return pasted


def use_onnx(
    cfg: Config,
    path: str | os.PathLike,
    runtime: str = 'onnxruntime',
    threads: int | None = None,
) -> None:
    """Put an exported network into the place of a config's model, in place.

    ``path``, ``runtime`` and ``threads`` are those of :class:`Session`. Raises
    ValueError for a network of another kind than the config's model.
    """
    kind = read_exported(path)[1]['kind']
    scope = cfg.get('default_scope')
    if kind != KINDS.get(scope):
        raise ValueError(
            f'{path} is a {kind} and the config, of {scope}, describes a '
            f'{KINDS.get(scope)}.'
        )
    names = ('data_preprocessor', 'test_cfg')
    kept = {key: cfg.model[key] for key in names if key in cfg.model}
    settings = dict(path=os.fspath(path), runtime=runtime, threads=threads)
    cfg.model = ConfigDict(type='mmmobilemamba.OnnxModel', **settings, **kept)
    cfg.load_from = None

"""Label maps of large images without the logits of all classes at once."""

from functools import partial

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from torch import Tensor, nn

from ..registry import import_host

# Bytes of logits that MMSegmentation may keep, three times over.
_LIMIT = 2**28


def bound_memory(model: nn.Module) -> None:
    """Let a segmentor predict large images in bounded memory.

    MMSegmentation keeps the logits of all classes in the size of the image,
    7 GiB for 12 megapixels and 150 classes, and more while it works. Where
    they would take more than 256 MiB, the head's own small maps are enlarged
    class by class instead; samples then have ``pred_sem_seg`` only. Models
    other than a plain ``EncoderDecoder``, and heads that do more than enlarge
    their maps, stay as they are.
    """
    if not import_host('mmseg'):
        return
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead as Base

    if type(model) is EncoderDecoder and model.out_channels > 1:
        head = type(model.decode_head)
        own = head.predict, head.predict_by_feat
        if own == (Base.predict, Base.predict_by_feat):
            model.predict = partial(_predict, model)


def _predict(model: nn.Module, inputs: Tensor, data_samples=None) -> list:
    samples = data_samples or ()
    sizes = [inputs.shape[2:], *(sample.ori_shape for sample in samples)]
    pixels = max(height * width for height, width in sizes)
    small = 4 * model.out_channels * pixels <= _LIMIT
    if small or not samples or any(x.get('flip') for x in samples):
        return type(model).predict(model, inputs, data_samples)
    for image, sample in zip(inputs.split(1), samples, strict=True):
        labels = _label_map(model, image, sample.metainfo)
        sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
    return data_samples


def _label_map(model: nn.Module, image: Tensor, meta: dict) -> Tensor:
    """Return the class of each pixel of the original image (1, H, W)."""
    align = model.align_corners
    resize = partial(F.interpolate, mode='bilinear', align_corners=align)
    windows = _windows(model.test_cfg, image.shape[2:])
    crops = (image[window] for window in windows)
    maps = [model.decode_head(model.extract_feat(crop)) for crop in crops]
    count = torch.zeros_like(image[:, :1])
    for window in windows:
        count[window] += 1
    assert count.all(), 'test_cfg.stride leaves gaps between the windows'
    left, right, above, below = meta.get(
        'img_padding_size', meta.get('padding_size', [0] * 4)
    )
    height, width = image.shape[2:]
    inner = (..., slice(above, height - below), slice(left, width - right))
    labels, best = 0, -torch.inf
    for label in range(model.out_channels):
        total = torch.zeros_like(count)
        for window, logits in zip(windows, maps):
            part = total[window]
            part += resize(logits[:, label : label + 1], part.shape[2:])
        scores = resize((total / count)[inner], meta['ori_shape'])[0]
        labels = torch.where(scores > best, label, labels)
        best = scores.clamp(min=best)
    return labels


def _windows(cfg: dict, size: tuple[int, int]) -> list[tuple]:
    """Return MMSegmentation's windows, or one, as what indexes images."""
    crop = cfg.crop_size if cfg.get('mode') == 'slide' else size
    height, width = map(min, crop, size)
    steps = cfg.get('stride', size)
    tops, lefts = (
        [*range(0, side - part, step), side - part]
        for side, part, step in zip(size, (height, width), steps)
    )
    return [
        (..., slice(top, top + height), slice(left, left + width))
        for top in tops
        for left in lefts
    ]

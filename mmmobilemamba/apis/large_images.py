"""Label maps of large images without logits of every class and pixel."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from torch import Tensor, nn

from ..registry import import_host

# Bytes of logits that MMSegmentation may keep, three times over.
_LIMIT = 2**28
# Bytes of logits that are looked at together otherwise.
_BAND = 2**26

# Gives rows ``top`` to ``bottom`` of logits as (classes, rows, width). It is
# asked from top to bottom, and may forget what lies above.
Rows = Callable[[int, int], Tensor]


def bound_memory(model: nn.Module) -> None:
    """Let a segmentor predict large images in bounded memory.

    MMSegmentation keeps the logits of all classes in the size of the image,
    7 GiB for 12 megapixels and 150 classes, and more while it works. Where
    they would take more than 256 MiB, they are made and forgotten in bands,
    in ``slide`` mode, too; samples then have ``pred_sem_seg`` only.

    Args:
        model (nn.Module): Model of any library; others than plain
            ``EncoderDecoder`` stay as they are.
    """
    if import_host('mmseg'):
        from mmseg.models import EncoderDecoder

        if type(model) is EncoderDecoder:
            model.predict = partial(_predict, model)


def _predict(model: nn.Module, inputs: Tensor, data_samples=None) -> list:
    """Predict as the class does, and large images one by one in bands."""
    stride, crop = (
        model.test_cfg.get('stride'),
        model.test_cfg.get('crop_size'),
    )
    sizes = [inputs.shape[2:]]
    sizes += [sample.ori_shape for sample in data_samples or ()]
    pixels = max(height * width for height, width in sizes)
    if (
        not data_samples
        or 4 * model.out_channels * pixels <= _LIMIT
        or any(sample.get('flip') for sample in data_samples)
        or (stride and any(a > b for a, b in zip(stride, crop)))
    ):
        return type(model).predict(model, inputs, data_samples)
    for image, sample in zip(inputs.split(1), data_samples, strict=True):
        labels = _label_map(model, image, sample)
        sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
    return data_samples


def _label_map(model: nn.Module, image: Tensor, sample) -> Tensor:
    """Return the class of each pixel of the original image (1, H, W)."""
    meta = sample.metainfo
    align = model.align_corners
    height, width = image.shape[2:]
    if model.test_cfg.mode == 'slide':
        rows = _Buffered(_slide(model, image, meta))
    else:
        rows = _whole(model, image, meta)
    padding = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
    left, right, above, below = padding

    def inner(top: int, bottom: int) -> Tensor:
        return rows(top + above, bottom + above)[..., left : width - right]

    size = height - above - below, width - left - right
    new = tuple(meta['ori_shape'])
    resized = _resized(inner, size, new, align)
    step = max(1, _BAND // (4 * model.out_channels * max(new[1], width)))
    bands = []
    for top in range(0, new[0], step):
        logits = resized(top, min(top + step, new[0]))
        if len(logits) > 1:
            bands.append(logits.argmax(0))
        else:
            above_threshold = logits[0].sigmoid() > model.decode_head.threshold
            bands.append(above_threshold.to(logits))
    return torch.cat(bands)[None]


def _whole(model: nn.Module, image: Tensor, meta: dict) -> Rows:
    """Return the logits of a pass over the whole image."""
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    head = type(model.decode_head)
    for name in ('predict', 'predict_by_feat'):
        if getattr(head, name, None) is not getattr(BaseDecodeHead, name):
            logits = model.encode_decode(image, [meta])[0]
            return lambda top, bottom: logits[:, top:bottom]
    logits = model.decode_head(model.extract_feat(image))[0]
    return _resized(
        lambda top, bottom: logits[:, top:bottom],
        tuple(logits.shape[1:]),
        tuple(image.shape[2:]),
        model.align_corners,
    )


def _slide(model: nn.Module, image: Tensor, meta: dict) -> Iterator[Tensor]:
    """Yield each row of logits as soon as no further window touches it."""
    height, width = image.shape[2:]
    steps = model.test_cfg.stride
    crop = [
        min(a, b) for a, b in zip(model.test_cfg.crop_size, (height, width))
    ]
    tops, lefts = (
        [*range(0, side - part, step), side - part]
        for side, part, step in zip((height, width), crop, steps)
    )
    total = image.new_zeros(model.out_channels, crop[0], width)
    count = image.new_zeros(1, crop[0], width)
    for top, following in zip(tops, [*tops[1:], height]):
        for left in lefts:
            window = image[..., top : top + crop[0], left : left + crop[1]]
            meta['img_shape'] = window.shape[2:]
            columns = slice(left, left + crop[1])
            total[..., columns] += model.encode_decode(window, [meta])[0]
            count[..., columns] += 1
        done = following - top
        for row in range(done):
            yield total[:, row : row + 1] / count[:, row : row + 1]
        for row in range(crop[0]):
            kept = row + done < crop[0]
            for part in (total, count):
                part[:, row] = part[:, row + done] if kept else 0


class _Buffered:
    """Give rows of an iterator of single ones; forget those above."""

    def __init__(self, parts: Iterator[Tensor]) -> None:
        self.parts, self.first = parts, 0
        self.rows = next(parts)

    def __call__(self, top: int, bottom: int) -> Tensor:
        missing = bottom - self.first - self.rows.shape[1]
        parts = [self.rows, *islice(self.parts, max(missing, 0))]
        self.rows = torch.cat(parts, 1)[:, top - self.first :]
        self.first = top
        return self.rows[:, : bottom - top]


def _resized(
    rows: Rows, old: tuple[int, int], new: tuple[int, int], align: bool
) -> Rows:
    """Resize rows as ``F.interpolate(mode='bilinear')`` does all of them."""
    if old == new:
        return rows

    def resized(top: int, bottom: int) -> Tensor:
        y = torch.arange(top, bottom, dtype=torch.float64)
        if align:
            y *= (old[0] - 1) / max(new[0] - 1, 1)
        else:
            y = ((y + 0.5) * (old[0] / new[0]) - 0.5).clamp(min=0)
        upper = y.long().clamp(max=old[0] - 1)
        lower = (upper + 1).clamp(max=old[0] - 1)
        first = int(upper[0])
        part = rows(first, int(lower[-1]) + 1)
        weight = (y - upper).to(part)[:, None]
        upper, lower = (i.to(part.device) - first for i in (upper, lower))
        part = part[:, upper].lerp(part[:, lower], weight)
        size = bottom - top, new[1]
        return F.interpolate(
            part[None], size, mode='bilinear', align_corners=align
        )[0]

    return resized

"""A data pipeline that names samples at fault, and goes on without them."""

import functools
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import get_rank
from mmengine.logging import print_log
from PIL import Image

from ..registry import TRANSFORMS
from .data_paths import find_datasets, type_name

# Samples told apart: a byte each, shared by the processes that load.
_CAPACITY = 1 << 20
_TOO_LARGE = Image.DecompressionBombError  # for PIL, from 180 megapixels on
# How JPEG and PNG begin, and how whole files of them end.
_ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND\xaeB`\x82'}


class DataFaultError(RuntimeError):
    """The data cannot be trained on; the message has one line."""


@TRANSFORMS.register_module()
class CheckedPipeline:
    """Run a pipeline, leave out samples that cannot be read, and name them.

    What the steps called ``Load...`` give is checked as soon as it is there:
    files that are cut off, images and masks of different sizes. The data set
    takes another sample in place of one that is left out. Labels that the
    model has no class for are an error, as are too many faults.

    Args:
        transforms (Sequence[dict | callable]): Steps of the pipeline.
        num_classes (int, optional): Classes that the model has; labels are
            not checked without. Defaults to None.
        ignore_index (int): Label of pixels that the loss passes over.
            Defaults to 255.
        max_faulty (int): Different samples to leave out before it is an
            error. More than 0, for training, also drops boxes without area.
            Defaults to 50.
    """

    def __init__(
        self,
        transforms: Sequence,
        num_classes: int | None = None,
        ignore_index: int = 255,
        max_faulty: int = 50,
    ) -> None:
        self.transforms = Compose(transforms).transforms
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.max_faulty = max_faulty
        self._faulty = torch.zeros(_CAPACITY, dtype=torch.bool).share_memory_()

    def __call__(self, results: dict) -> dict | None:
        """Run the steps on a sample; give None where it is left out."""
        index, known = results.get('sample_idx', 0), set()
        name = results.get('img_path') or f'sample {index}'
        if self.max_faulty and 'instances' in results:
            flat, objects = flat_boxes(results), results['instances']
            kept = [x for n, x in enumerate(objects) if n not in flat]
            results['instances'] = kept
            if flat:
                _say_dropped()
        for transform in self.transforms:
            step = type(transform).__name__
            try:
                if getattr(transform, 'with_mask', False):
                    _check_polygons(results)
                results = transform(results)
                if results is None:
                    return None
                if step.startswith('Load'):
                    self._check(results, results.keys() - known)
                    known = set(results)
            except Exception as error:
                if not step.startswith('Load'):
                    raise
                what = f'{name}: {describe(error)} ({step})'
                # PIL names no file.
                file = str(results.get('seg_map_path') or 'it')
                what = file.join(re.split('<.*BytesIO.*?>', what))
                if isinstance(error, DataFaultError) or not self.max_faulty:
                    raise DataFaultError(what) from error
                self._leave_out(index % _CAPACITY, what)
                return None
        return results

    def _leave_out(self, index: int, what: str) -> None:
        """Log once for all processes and epochs, or raise."""
        new, self._faulty[index] = not self._faulty[index], True
        count = int(self._faulty.sum())
        if count > self.max_faulty:
            raise DataFaultError(
                f'{count} samples cannot be used, {self.max_faulty} may be '
                f'left out; the last one is {what}'
            )
        if new:
            # The loggers of other ranks than the first say errors alone.
            level = logging.ERROR if get_rank() else logging.WARNING
            text = f'A sample is left out for another one: {what}'
            print_log(text, logger='current', level=level)

    def _check(self, results: Mapping, new: set[str]) -> None:
        """Raise a DataFaultError for labels, another error for the rest."""
        sizes, path = [], results.get('seg_map_path')
        if 'img' in new:
            _check_whole(Path(results.get('img_path') or ''))
            sizes.append((results.get('height'), results.get('width')))
        if 'gt_seg_map' in new:
            shape = results['gt_seg_map'].shape
            sizes.append(shape)
            if len(shape) != 2 or header_of(path)[0].startswith(('I', 'F')):
                raise DataFaultError(
                    f'label image {path} of shape {shape} must have one '
                    'channel of 8 bits, or numbers are cut off'
                )
        for size in sizes:
            image = results.get('ori_shape') or results['img'].shape[:2]
            if None not in size and tuple(size) != tuple(image):
                what = f'the height and width of the image are {image}'
                raise ValueError(f'{what}, those of its labels {size}')
        labels = {'gt_label', 'gt_bboxes_labels', 'gt_seg_map'} & new
        for key in labels if self.num_classes is not None else ():
            labels = np.atleast_1d(results[key])
            wrong = (labels < 0) | (labels >= self.num_classes)
            if key == 'gt_seg_map':
                # Beside boxes it serves another head, of other classes.
                wrong &= labels != self.ignore_index
                wrong &= 'instances' not in results
            if wrong.any():
                place = tuple(np.argwhere(wrong)[0].tolist())
                what = path if key == 'gt_seg_map' else key
                raise DataFaultError(
                    f'{what} has label {labels[place]} at {place}, the '
                    f'model has classes 0 to {self.num_classes - 1} (after '
                    f'reduce_zero_label={results.get("reduce_zero_label")})'
                )


@functools.cache  # once in each process
def _say_dropped() -> None:
    what = 'Boxes without area are dropped; check_dataset.py lists them.'
    print_log(what, logger='current', level=logging.WARNING)


def describe(error: Exception) -> str:
    """Return type and message of an error in one line."""
    text = ' '.join(str(error).split())
    ours = isinstance(error, DataFaultError)
    return text if ours else f'{type(error).__name__}: {text}'


def header_of(path: str | None) -> tuple[str, int]:
    """Return the mode of PIL and the EXIF orientation of an image file."""
    try:
        with Image.open(path) as image:
            return image.mode, image.getexif().get(0x0112) or 1
    except (OSError, AttributeError, ValueError, SyntaxError, _TOO_LARGE):
        return '', 1  # no local file, or one that only others read


def flat_boxes(results: Mapping) -> dict[int, str]:
    """Find boxes of which a loss takes the logarithm of 0, by number."""
    boxes = [x.get('bbox', ()) for x in results.get('instances') or ()]
    return {
        number: f'box {number} has no area: x1, y1, x2, y2 = {[*box]}'
        for number, box in enumerate(boxes)
        if len(box) == 4
        and not all(-np.inf < box[k] < box[k + 2] < np.inf for k in (0, 1))
    }


def _check_polygons(results: Mapping) -> None:
    """Raise where pycocotools would fill the memory on its way to a point."""
    for number, entry in enumerate(results.get('instances') or ()):
        mask = entry.get('mask')
        for polygon in mask if isinstance(mask, list) else ():
            if not (np.abs(np.array(polygon, float)) < 2**20).all():
                raise ValueError(f'object {number} has the polygon {polygon}')


def _check_whole(path: Path) -> None:
    """Raise where pixels are missing; OpenCV 4 fills a JPEG with grey."""
    content = path.read_bytes() if path.is_file() else b''
    # Anything may follow the end of an image, so a strange end is no fault.
    if not content.endswith(_ENDS.get(content[:2], b'')):
        Image.open(io.BytesIO(content)).load()


def heads_of(model: dict) -> Iterator[tuple[str, dict]]:
    """Yield name and config of every head of a model, but proposals'."""
    for name, part in model.items():
        for head in part if isinstance(part, list | tuple) else [part]:
            if isinstance(head, dict) and name != 'rpn_head':
                if name.endswith('head'):
                    yield name, head
                yield from heads_of(head)


def label_range(model: dict) -> dict[str, int | None]:
    """Return ``num_classes`` and ``ignore_index`` for CheckedPipeline."""
    numbers = [head.get('num_classes') for _, head in heads_of(model)]
    numbers = [number for number in numbers if isinstance(number, int)]
    ignored = [head.get('ignore_index') for _, head in heads_of(model)]
    ignored = [number for number in ignored if isinstance(number, int)]
    smallest = min(numbers, default=None)
    return dict(num_classes=smallest, ignore_index=[*ignored, 255][0])


def set_data_checks(cfg: Config, splits: tuple, max_faulty: int = 50) -> None:
    """Run the pipelines of data loaders, and later ones of hooks, with checks.

    Only training may leave out samples: up to ``max_faulty`` of a data set.
    """
    limits = label_range(cfg.get('model') or {})
    pipelines = [
        (part, 'pipeline', max_faulty if split == 'train' else 0)
        for split in splits
        for _, part in find_datasets(cfg, split)
    ]
    hooks = (cfg.get('custom_hooks') or ()) if 'train' in splits else ()
    pipelines += [(hook, 'switch_pipeline', max_faulty) for hook in hooks]
    for part, key, allowed in pipelines:
        steps = part.get(key)
        if steps and type_name(steps[0]) != 'CheckedPipeline':
            step = dict(type='mmmobilemamba.CheckedPipeline', transforms=steps)
            part[key] = [dict(step, max_faulty=allowed, **limits)]

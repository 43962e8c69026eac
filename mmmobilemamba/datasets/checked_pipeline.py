"""A data pipeline that says which file is at fault, and goes on without it.

Deeper in a training the same faults are an index error in a loss, a device
assert on a GPU, or nothing at all.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import get_rank
from mmengine.logging import print_log
from PIL import Image

from ..registry import TRANSFORMS

# So many faulty samples one after the other are no coincidence.
_MAX_IN_A_ROW = 20
# Samples told apart: a byte each, shared by the processes that load.
_CAPACITY = 1 << 20
_NAMED, _LEFT_OUT = 1, 2
# How whole files end; where one does not, it is decoded to make sure, since
# anything may follow the end of an image.
_ENDS = {
    b'\xff\xd8': b'\xff\xd9',  # JPEG
    b'\x89P': b'IEND\xaeB`\x82',  # PNG
}


class DataFaultError(RuntimeError):
    """The data cannot be trained on; the message has one line."""


class SampleFaultError(Exception):
    """A sample that cannot be used, while others can."""


class LabelFaultError(SampleFaultError):
    """A label that the model has no class for: others will be wrong too."""


@TRANSFORMS.register_module()
class CheckedPipeline:
    """Run a pipeline, leave out samples that cannot be read, and name them.

    What the steps called ``Load...`` give is checked as soon as it is there:
    files that are cut off, images and masks of different sizes. A data set of
    mmengine takes another sample in place of one that is left out, drawn from
    the random state of the loading process, so that equal seeds give equal
    samples. Labels that the model has no class for are an error, as are too
    many faults.

    Args:
        transforms (Sequence[dict | callable]): Steps of the pipeline.
        num_classes (int, optional): Classes that the model has; labels are
            not checked without. Defaults to None.
        ignore_index (int): Label of pixels that the loss passes over.
            Defaults to 255.
        max_faulty (int): Different samples to leave out before it is an
            error; 0, for evaluation, allows none. Defaults to 50.
        drop_flat_boxes (bool): Whether to go without objects whose boxes have
            no area. An evaluation keeps them, or its metric would be another
            one. Defaults to True.
    """

    def __init__(
        self,
        transforms: Sequence,
        num_classes: int | None = None,
        ignore_index: int = 255,
        max_faulty: int = 50,
        drop_flat_boxes: bool = True,
    ) -> None:
        self.transforms = Compose(transforms).transforms
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.max_faulty = max_faulty
        self.drop_flat_boxes = drop_flat_boxes
        self._in_a_row = 0
        self._seen = torch.zeros(_CAPACITY, dtype=torch.uint8).share_memory_()

    def __call__(self, results: dict) -> dict | None:
        """Run the steps.

        Args:
            results (dict): Sample of the data set.

        Returns:
            dict: The sample after the last step, or None where it is left
            out.

        Raises:
            DataFaultError: A label has no class, or there are too many
                faults.
            RuntimeError: A step after loading failed.
        """
        name = name_of(results)
        index = results.get('sample_idx', 0) % _CAPACITY
        if self.drop_flat_boxes:
            self._drop_boxes(name, index, results)
        try:
            results = run_steps(
                self.transforms, results, self.num_classes, self.ignore_index
            )
        except SampleFaultError as fault:
            if self.max_faulty <= 0 or isinstance(fault, LabelFaultError):
                raise DataFaultError(f'{name}: {fault}.') from None
            self._leave_out(name, index, str(fault))
            return None
        self._in_a_row = 0
        return results

    def _leave_out(self, name: str, index: int, reason: str) -> None:
        self._in_a_row += 1
        new = self._seen[index] != _LEFT_OUT
        self._seen[index] = _LEFT_OUT
        count = int((self._seen == _LEFT_OUT).sum())
        if count > self.max_faulty or self._in_a_row > _MAX_IN_A_ROW:
            many = (
                f'{count} samples'
                if count > self.max_faulty
                else f'{self._in_a_row} samples in a row'
            )
            raise DataFaultError(
                f'{many} cannot be used, the last one is {name}: {reason}.'
            )
        if new:
            _warn(
                f'{name} is left out, another sample takes its place: '
                f'{reason}. ({count} so far, {self.max_faulty} allowed)'
            )

    def _drop_boxes(self, name: str, index: int, results: dict) -> None:
        """Train on the other objects of the image."""
        flat = flat_boxes(results)
        if not flat:
            return
        instances = results['instances']
        results['instances'] = [
            x for number, x in enumerate(instances) if number not in flat
        ]
        if not self._seen[index]:
            self._seen[index] = _NAMED
            _warn(
                f'{name} is used without {len(flat)} of its '
                f'{len(instances)} objects: {next(iter(flat.values()))}.'
            )

    def __repr__(self) -> str:
        steps = ''.join(f'    {step}\n' for step in self.transforms)
        return f'{type(self).__name__}(\n{steps})'


def _warn(text: str) -> None:
    # The loggers of other processes than the first say errors alone.
    level = logging.ERROR if get_rank() else logging.WARNING
    print_log(text, logger='current', level=level)


def name_of(results: Mapping) -> str:
    """Return the image file of a sample, or its number."""
    path = results.get('img_path') or results.get('filename')
    return str(path or f'sample {results.get("sample_idx", "?")}')


def header_of(path: str | None) -> tuple[str, int]:
    """Return the mode of PIL and the EXIF orientation of an image file."""
    try:
        with Image.open(path) as image:
            return image.mode, image.getexif().get(0x0112) or 1
    except (OSError, AttributeError, ValueError, SyntaxError):
        return '', 1  # no local file, or a format that others read


def flat_boxes(results: Mapping) -> dict[int, str]:
    """Find boxes without area, or of no numbers, by number of the object.

    MMDetection drops those of COCO's files and no others, of which the loss
    takes a logarithm of 0.
    """
    found = {}
    for number, instance in enumerate(results.get('instances') or ()):
        box = np.asarray(instance.get('bbox', ()), dtype=float)
        if box.shape == (4,) and not (
            np.isfinite(box).all() and (box[2:] > box[:2]).all()
        ):
            corners = ', '.join(f'{x:g}' for x in box)
            found[number] = (
                f'box {number} has no area: x1, y1, x2, y2 = {corners}'
            )
    return found


def run_steps(
    transforms: Sequence[Callable],
    results: dict,
    num_classes: int | None = None,
    ignore_index: int = 255,
) -> dict | None:
    """Run a pipeline and check what its steps called ``Load...`` give.

    Raises a SampleFaultError where the sample cannot be used, a
    LabelFaultError for a label without a class, and a RuntimeError where a
    step after loading failed. Gives None where a step does.
    """
    name = name_of(results)
    _check_range('label', results.get('gt_label'), num_classes)
    for transform in transforms:
        kind = type(transform).__name__
        known = set(results)
        try:
            results = transform(results)
        except Exception as error:
            said = ' '.join(str(error).split())
            said = f'{kind} failed: {type(error).__name__}: {said}'
            if kind.startswith('Load'):
                raise SampleFaultError(said) from error
            raise RuntimeError(f'{name}: {said}') from error
        if results is None:
            return None
        new = results.keys() - known if kind.startswith('Load') else ()
        if 'img' in new:
            _check_image(results)
        if 'gt_bboxes_labels' in new:
            _check_range('box', results['gt_bboxes_labels'], num_classes)
        if 'gt_seg_map' in new:
            _check_label_map(results, num_classes, ignore_index)
    return results


def _check_whole(path: str) -> None:
    """Raise where pixels are missing; OpenCV 4 fills a JPEG with grey."""
    if not os.path.isfile(path):
        return
    with open(path, 'rb') as file:
        end = _ENDS.get(file.read(2))
        if end is None:
            return
        file.seek(-min(len(end), os.path.getsize(path)), os.SEEK_END)
        if file.read() == end:
            return
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleFaultError(
            f'the file is cut off or damaged: {error}'
        ) from None


def _check_image(results: Mapping) -> None:
    """Check an image against its file and its annotations."""
    if results.get('img_path'):
        _check_whole(results['img_path'])
    size = tuple(results['img'].shape[:2])
    said = results.get('height'), results.get('width')
    found = [('annotations are for', said)] if None not in said else []
    for number, instance in enumerate(results.get('instances') or ()):
        mask = instance.get('mask') if isinstance(instance, dict) else None
        if isinstance(mask, dict) and 'size' in mask:
            found.append((f'mask of object {number} is', mask['size']))
    for what, other in found:
        if tuple(map(int, other)) != size:
            raise SampleFaultError(
                f'the image is {_size(size)}, the {what} {_size(other)} '
                '(width x height)'
            )


def _check_label_map(
    results: Mapping, num_classes: int | None, ignore_index: int
) -> None:
    """Check the classes of pixels, and that they are those of the image."""
    labels, path = results['gt_seg_map'], results.get('seg_map_path')
    what = f'label image {path}' if path else 'label image'
    if labels.ndim != 2:
        raise LabelFaultError(
            f'{what} has {labels.shape[-1]} channels; it must hold one class '
            'number for each pixel'
        )
    if header_of(path)[0].startswith(('I', 'F')):
        raise LabelFaultError(
            f'{what} has 16 or 32 bits for each pixel, which are cut to 8: '
            '256 would become class 0; save it with 8'
        )
    size = tuple(results.get('ori_shape') or results['img'].shape[:2])
    if labels.shape != size:
        raise SampleFaultError(
            f'{what} is {_size(labels.shape)}, the image {_size(size)} '
            '(width x height)'
        )
    # Beside boxes it serves another head, of classes of its own.
    if num_classes is None or 'instances' in results:
        return
    wrong = (labels >= num_classes) & (labels != ignore_index)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        reduced = results.get('reduce_zero_label')
        raise LabelFaultError(
            f'{what} has label {labels[row, column]} at row {row}, column '
            f'{column}{" after reduce_zero_label" if reduced else ""} '
            f'({wrong.mean():.1%} of its pixels are such); the model has '
            f'{num_classes} classes, so 0 to {num_classes - 1} and '
            f'{ignore_index}, which is ignored, are allowed'
        )


def _check_range(what: str, labels, num_classes: int | None) -> None:
    labels = np.asarray(labels).reshape(-1)
    if num_classes is None or not np.issubdtype(labels.dtype, np.integer):
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        number = f' {wrong[0]}' if what == 'box' else ''
        raise LabelFaultError(
            f'{what}{number} has class {labels[wrong[0]]}; the model has '
            f'{num_classes}, so 0 to {num_classes - 1} are allowed'
        )


def _size(shape: Sequence) -> str:
    return f'{int(shape[1])}x{int(shape[0])}'

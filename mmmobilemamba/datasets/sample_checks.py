"""What can be wrong with one sample, found where it is loaded.

Deeper in a training the same faults are an index error in a loss, a device
assert on a GPU, or nothing at all. Checks take the sample, the number of
classes that the model has (None: unknown), and the label that is ignored.
"""

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

# How whole files end; where one does not, it is decoded to make sure, since
# anything may follow the end of an image.
_ENDS = {
    b'\xff\xd8': b'\xff\xd9',  # JPEG
    b'\x89P': b'IEND\xaeB`\x82',  # PNG
}


class SampleFaultError(Exception):
    """A sample that cannot be used, while others can."""


class LabelFaultError(Exception):
    """A label that the model has no class for: others will be wrong too."""


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
    num_classes: int | None,
    ignore_index: int,
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
        known = {key for key in _CHECKS if key in results}
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
        if kind.startswith('Load'):
            for key, check in _CHECKS.items():
                if key in results and key not in known:
                    check(results, num_classes, ignore_index)
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


def _check_image(results: Mapping, *_) -> None:
    """Check an image against its file and its annotations."""
    if results.get('img_path'):
        _check_whole(results['img_path'])
    size = tuple(results['img'].shape[:2])
    said = results.get('height'), results.get('width')
    if None not in said and tuple(map(int, said)) != size:
        raise SampleFaultError(
            f'the image is {_size(size)}, the annotations are for '
            f'{_size(said)} (width x height)'
        )
    for number, instance in enumerate(results.get('instances') or ()):
        mask = instance.get('mask') if isinstance(instance, dict) else None
        if isinstance(mask, dict) and tuple(mask.get('size', size)) != size:
            raise SampleFaultError(
                f'the mask of object {number} is {_size(mask["size"])}, the '
                f'image {_size(size)} (width x height)'
            )


def _check_boxes(results: Mapping, num_classes: int | None, _: int) -> None:
    _check_range('box', results['gt_bboxes_labels'], num_classes)


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


_CHECKS = {
    'img': _check_image,
    'gt_bboxes_labels': _check_boxes,
    'gt_seg_map': _check_label_map,
}

"""What can be wrong with one sample, found where it is loaded.

Deeper in a training the same faults are an index error in a loss, a device
assert on a GPU, or nothing at all.
"""

import os
from collections.abc import Mapping

import numpy as np
from PIL import Image

# How whole files end; where one does not, it is decoded to make sure, since
# anything may follow the end of a picture.
_ENDS = {
    b'\xff\xd8': b'\xff\xd9',  # JPEG
    b'\x89P': b'IEND\xaeB`\x82',  # PNG
}
# Pictures of more than 8 bits, which MMSegmentation casts to 8.
_WIDE_MODES = ('I', 'I;16', 'I;16B', 'I;16L', 'F')


class SampleFaultError(Exception):
    """A sample that cannot be used, while others can."""


class LabelFaultError(Exception):
    """A label that the model has no class for: others will be wrong too."""


def name_of(results: Mapping) -> str:
    """Return the file of a sample.

    Args:
        results (Mapping): Sample as the data set gives it to its pipeline.

    Returns:
        str: Path of the picture, or its number where it has none.
    """
    path = results.get('img_path') or results.get('filename')
    return str(path or f'sample {results.get("sample_idx", "?")}')


def check_whole(path: str | os.PathLike) -> None:
    """Check that a JPEG or PNG is not cut off.

    OpenCV 4 fills what is missing of a JPEG with grey and goes on.

    Args:
        path (str or PathLike): File; what is no local file is passed over.

    Raises:
        SampleFaultError: Pixels are missing.
    """
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


def check_picture(results: Mapping, *_) -> None:
    """Check a loaded picture against its file and its annotations.

    Args:
        results (Mapping): Sample with ``img``.

    Raises:
        SampleFaultError: The file is cut off, or the picture has another size
            than its annotations are for.
    """
    if results.get('img_path'):
        check_whole(results['img_path'])
    size = tuple(results['img'].shape[:2])
    said = results.get('height'), results.get('width')
    if None not in said and tuple(map(int, said)) != size:
        raise SampleFaultError(
            f'the picture is {_size(size)}, the annotations are for '
            f'{_size(said)} (width x height)'
        )
    for number, instance in enumerate(results.get('instances') or ()):
        mask = instance.get('mask') if isinstance(instance, dict) else None
        if isinstance(mask, dict) and tuple(mask.get('size', size)) != size:
            raise SampleFaultError(
                f'the mask of object {number} is {_size(mask["size"])}, the '
                f'picture {_size(size)} (width x height)'
            )


def flat_boxes(results: Mapping) -> dict[int, str]:
    """Find boxes that have no area or are no numbers.

    MMDetection drops those of COCO's files and no others, of which the loss
    takes a logarithm of 0.

    Args:
        results (Mapping): Sample as the data set gives it to its pipeline,
            with ``instances`` if it has any.

    Returns:
        dict[int, str]: What is wrong, by the number of the object.
    """
    found = {}
    for number, instance in enumerate(results.get('instances') or ()):
        box = np.asarray(instance.get('bbox', ()), dtype=float)
        if box.shape != (4,):
            continue  # rotated ones, or none
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            corners = ', '.join(f'{x:g}' for x in box)
            found[number] = (
                f'box {number} has no area: x1, y1, x2, y2 = {corners}'
            )
    return found


def check_box_labels(
    results: Mapping, num_classes: int | None, ignore_index: int
) -> None:
    """Check the classes of boxes.

    Args:
        results (Mapping): Sample with ``gt_bboxes_labels``, (objects, ).
        num_classes (int, optional): Classes that the model has.
        ignore_index (int): Unused.

    Raises:
        LabelFaultError: There is no such class.
    """
    _check_range('box', results['gt_bboxes_labels'], num_classes)


def check_label(results: Mapping, num_classes: int | None) -> None:
    """Check the class, or the classes, of a picture.

    Args:
        results (Mapping): Sample, with ``gt_label`` if it has one.
        num_classes (int, optional): Classes that the model has.

    Raises:
        LabelFaultError: There is no such class.
    """
    if results.get('gt_label') is not None:
        _check_range('label', results['gt_label'], num_classes)


def check_label_map(
    results: Mapping, num_classes: int | None, ignore_index: int
) -> None:
    """Check the classes of pixels, and that they are those of the picture.

    Args:
        results (Mapping): Sample with ``gt_seg_map``, (height, width).
        num_classes (int, optional): Classes that the model has.
        ignore_index (int): Label that the loss passes over.

    Raises:
        SampleFaultError: The label image has another size than its picture.
        LabelFaultError: It holds no labels, or one that there is no class for.
    """
    labels, path = results['gt_seg_map'], results.get('seg_map_path')
    what = f'label image {path}' if path else 'label image'
    if labels.ndim != 2:
        raise LabelFaultError(
            f'{what} has {labels.shape[-1]} channels; it must hold one class '
            'number for each pixel'
        )
    if path and _mode(path) in _WIDE_MODES:
        raise LabelFaultError(
            f'{what} has 16 or 32 bits for each pixel, which are cut to 8: '
            '256 would become class 0; save it with 8'
        )
    size = tuple(results.get('ori_shape') or results['img'].shape[:2])
    if labels.shape != size:
        raise SampleFaultError(
            f'{what} is {_size(labels.shape)}, the picture {_size(size)} '
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


def _mode(path: str) -> str | None:
    try:
        with Image.open(path) as image:
            return image.mode
    except OSError:
        return None  # no local file, or a format that others read


def _size(shape) -> str:
    return f'{int(shape[1])}x{int(shape[0])}'

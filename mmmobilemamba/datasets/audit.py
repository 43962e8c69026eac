"""Reading the data of a config once, to say all that is wrong with it."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Dataset

from .checked_pipeline import flat_boxes, header_of, name_of, run_steps
from .coco_checks import check_coco, check_voc
from .data_checks import label_range
from .data_paths import find_datasets, type_name

# Images of more than 8 bits whose values all come to less are dark.
_DARK = 16


@dataclass
class Report:
    """What a data set holds.

    Args:
        key (str): Where it stands in the config.
        faults (list[tuple[str, str]]): File or '', and what is wrong.
        remarks (list[str]): What is no fault.
        classes (tuple[str]): Names of its classes.
        folders (tuple[str]): Names of its folders, where these are classes.
        total (int): Number of samples.
        objects (Counter): How often each label occurs.
        samples (Counter): In how many samples.
    """

    key: str
    faults: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    total: int = 0
    objects: Counter = field(default_factory=Counter)
    samples: Counter = field(default_factory=Counter)


def audit(
    cfg: Config, splits: tuple[str, ...], workers: int = 0, progress=None
) -> Iterator[Report]:
    """Report on every data set, whatever is wrong with it.

    Args:
        cfg (Config): Config of a run, with its default scope set.
        splits (tuple[str]): Which of ``'train'``, ``'val'`` and ``'test'``.
        workers (int): Processes that load. Defaults to 0, which loads in
            this one.
        progress (Callable, optional): Wraps the iteration over the samples;
            takes it, its name and its length. Defaults to None.

    Yields:
        Report: What was found, in the order of the config.
    """
    limits = label_range(cfg.get('model') or {})
    folders: tuple[str, ...] = ()
    for split in splits:
        reports = []
        for key, part in find_datasets(cfg, split):
            report = Report(key)
            reports.append(report)
            try:
                _read(report, part, limits, workers, progress)
            except Exception as error:
                # Whatever a host's data set makes of what is in the files.
                if report.total or not report.faults:
                    report.faults.append(('', _said(error)))
            folders = folders or report.folders
            if report.folders and report.folders != folders:
                only = ', '.join(sorted(set(folders) ^ set(report.folders)))
                what = f'folders differ between data sets: {only}'
                report.faults.append(('', what))
        if reports:
            faults = _label_faults(reports, limits.get('ignore_index', 255))
            reports[0].faults += [('', fault) for fault in faults]
        yield from reports


def one_class_faults(model: dict) -> list[str]:
    """Find heads whose softmax has one class, so that they learn nothing."""
    faults = []
    for key in ('decode_head', 'auxiliary_head', 'head'):
        heads = model.get(key) or ()
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            losses = head.get('loss_decode') or head.get('loss') or {}
            losses = [losses] if isinstance(losses, dict) else losses
            softmax = any(
                type_name(loss) in ('', 'CrossEntropyLoss', 'LabelSmoothLoss')
                and not loss.get('use_sigmoid')
                for loss in losses
            )
            if head.get('num_classes') == 1 and softmax:
                faults.append(
                    f'model.{key} has one class under a softmax, which is '
                    'always certain of it: take num_classes=2, with a class '
                    'for the background, or use_sigmoid=True'
                )
    return faults


class _Samples(Dataset):
    """Load samples without augmentation; give file, faults and labels."""

    def __init__(self, dataset, loading: list, limits: dict) -> None:
        self.dataset = dataset
        self.loading = Compose(loading).transforms
        self.limits = limits

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[str, list[str], dict[int, int]]:
        name, labels = f'sample {index}', {}
        try:
            sample = self.dataset.get_data_info(index)
            name = name_of(sample)
            faults = list(flat_boxes(sample).values())
            sample = run_steps(self.loading, sample, **self.limits) or {}
            faults += self._image_faults(sample)
            for key in ('gt_bboxes_labels', 'gt_seg_map', 'gt_label'):
                if sample.get(key) is not None:
                    found = np.unique(sample[key], return_counts=True)
                    labels = {int(n): int(k) for n, k in zip(*found)}
                    break
        except Exception as error:
            faults = [_said(error)]
        return name, faults, labels

    def _image_faults(self, sample: dict) -> Iterator[str]:
        path, image = sample.get('img_path'), sample.get('img')
        if image is None:
            return
        if image.size and image.max() < _DARK and os.path.isfile(str(path)):
            stored = cv2.imread(path, cv2.IMREAD_UNCHANGED)
            if stored is not None and stored.max() > image.max():
                yield (
                    f'values up to {stored.max()} of more than 8 bits come to '
                    f'{image.max()} of 255 or less: scale them before'
                )
        turn = header_of(path)[1]
        kinds = [getattr(step, 'color_type', 'color') for step in self.loading]
        height, width = image.shape[:2]
        if (
            turn != 1
            and (turn < 5 or height == width)
            and {'gt_bboxes_labels', 'gt_seg_map'} & sample.keys()
            and not any('ignore_or' in k or k == 'unchanged' for k in kinds)
        ):
            yield (
                f'the image is turned when it is read (EXIF orientation '
                f'{turn}) and its labels, of equal size, are not'
            )


def _said(error: Exception) -> str:
    said, kind = ' '.join(str(error).split()), type(error)
    ours = kind.__module__.startswith('mmmobilemamba')
    return said if ours else f'{kind.__name__}: {said}'


def _read(report: Report, part: dict, limits: dict, workers, progress) -> None:
    """Fill the report of one data set."""
    steps = [
        step
        for step in part.get('pipeline') or ()
        if isinstance(step, dict) and type_name(step).startswith('Load')
    ]
    masks = any(step.get('with_mask') for step in steps)
    _check_files(report, part, masks)
    # With test_mode empty images stay in, as what is measured.
    changes = dict(pipeline=[], test_mode=True, serialize_data=False)
    dataset = DATASETS.build(dict(part, **changes))
    dataset.full_init()
    report.classes = tuple(dataset.metainfo.get('classes') or ())
    report.folders = tuple(getattr(dataset, 'folder_to_idx', None) or ())
    classes, folders = report.classes, report.folders
    if set(classes) & set(folders) and classes != folders:
        what = (
            f'labels follow the sorted folders, {folders}, and '
            f'metainfo.classes is {classes}'
        )
        report.faults.append((str(part.get('data_root') or ''), what))
    report.total = len(dataset)
    samples = _Samples(dataset, steps, limits)
    loaded = DataLoader(samples, batch_size=None, num_workers=workers)
    if progress is not None:
        loaded = progress(loaded, report.key, report.total)
    for name, faults, labels in loaded:
        report.faults += [(name, fault) for fault in faults]
        report.objects.update(labels)
        report.samples.update(labels.keys())
    if not report.total:
        what = 'no sample is found: do ann_file, data_prefix and suffix fit?'
        report.faults.append(('', what))
    elif not report.objects:
        report.remarks.append('There is no label to learn or measure.')


def _label_faults(reports: list[Report], ignore: int) -> Iterator[str]:
    """Find what only the labels of all samples of a split show."""
    found = set().union(*(report.objects for report in reports))
    if not found:
        return
    if found <= {ignore}:
        yield (
            f'every pixel is {ignore}, which is ignored; should '
            'reduce_zero_label be False?'
        )
    elif found == {0, 255} and ignore == 255:
        yield 'label images hold 0 and 255 only, and 255 is ignored'
    # The parts of a set may each have some of the classes.
    seen = {
        name
        for report in reports
        for number, name in enumerate(report.classes)
        if report.objects[number]
    }
    never = [n for n in reports[0].classes if n not in seen]
    if never:
        few = ', '.join(never[:20]) + (', ...' if never[20:] else '')
        yield f'{len(never)} classes of metainfo never occur: {few}'


def _check_files(report: Report, part: dict, masks: bool) -> None:
    """Check annotation files, for which the data set's own error is poor."""
    with DATASETS.switch_scope_and_registry(None) as registry:
        kind = part['type']
        kind = registry.get(kind) if isinstance(kind, str) else kind
    root = part.get('data_root') or ''
    listed = os.path.join(root, part.get('ann_file') or '')
    classes = (part.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and os.path.isfile(classes):
        classes = list_from_file(classes)
    elif isinstance(classes, str):
        raise ValueError(
            f'metainfo.classes is the string {classes!r}; one class is '
            f'({classes!r},), with a comma.'
        )
    classes = classes or (getattr(kind, 'METAINFO', None) or {}).get('classes')
    if not os.path.isfile(listed):
        return
    # Not of those that load in a way of their own, such as LVIS.
    loads = getattr(getattr(kind, 'load_data_list', 0), '__qualname__', '')
    if loads == 'CocoDataset.load_data_list':
        faults, remarks = check_coco(listed, classes, masks)
    elif loads == 'XMLDataset.load_data_list':
        inner = (part.get('data_prefix') or {}).get('sub_data_root', '')
        folder = part.get('ann_subdir', 'Annotations')
        folder = os.path.join(root, inner, folder)
        faults, remarks = check_voc(listed, folder, classes or ())
    else:
        return
    report.faults += [(listed, fault) for fault in faults]
    report.remarks += remarks

"""Reading the data of a config once, to say all that is wrong with it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import get
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from .checked_pipeline import (
    CheckedPipeline,
    describe,
    flat_boxes,
    header_of,
    label_range,
)
from .coco import coco_faults
from .data_paths import find_datasets, type_name


@dataclass
class Report:
    """What a data set holds; labels are counted in all and by sample."""

    key: str  # where it stands in the config
    faults: list[tuple[str, str]] = field(default_factory=list)  # with file
    classes: tuple[str, ...] = ()
    total: int = 0
    objects: Counter = field(default_factory=Counter)
    samples: Counter = field(default_factory=Counter)


def audit(
    cfg: Config,
    splits: Sequence[str],
    workers: int = 0,
    progress: Callable = lambda samples, key: samples,
) -> Iterator[Report]:
    """Report on every data set, whatever is wrong with it.

    Args:
        cfg (Config): Config of a run, with its default scope set.
        splits (Sequence[str]): Which of ``'train'``, ``'val'`` and ``'test'``.
        workers (int): Processes that load. Defaults to 0, which is this one.
        progress (Callable): Wraps the samples; takes them and a name.

    Yields:
        Report: What was found, in the order of the config.
    """
    limits, folders = label_range(cfg.get('model') or {}), []
    for split in splits:
        reports = []
        for key, part in find_datasets(cfg, split):
            report = Report(key)
            reports.append(report)
            try:
                dataset = _open(report, part, limits, folders)
                loader = DataLoader(dataset, None, num_workers=workers)
                for name, faults, labels in progress(loader, key):
                    report.faults += [(name, fault) for fault in faults]
                    report.objects.update(labels)
                    report.samples.update(labels.keys() or [None])
            except Exception as error:
                # Whatever a host's data set makes of what is in the files.
                name = str(part.get('ann_file') or '')
                report.faults.append((name, describe(error)))
        if reports:
            faults = _label_faults(reports, limits['ignore_index'])
            reports[0].faults += [('', fault) for fault in faults]
        yield from reports


def _open(report: Report, part: dict, limits: dict, known: list):
    """Build a data set and report on what its files say of all samples."""
    steps = [x for x in part.get('pipeline') or () if isinstance(x, dict)]
    steps = [step for step in steps if type_name(step).startswith('Load')]
    load = CheckedPipeline(steps, max_faulty=0, **limits)
    # Without augmentation, and with empty images, as what is measured.
    changes = dict(pipeline=[partial(_inspect, load)], filter_cfg=None)
    changes.update(lazy_init=True, serialize_data=False)
    dataset = DATASETS.build(dict(part, **changes))
    classes = dataset.metainfo.get('classes') or ()
    if isinstance(classes, str):
        raise ValueError(f'classes={classes!r}: one is ({classes!r},)')
    # Not of those that load in a way of their own, such as LVIS.
    loads = type(dataset).load_data_list.__qualname__
    path = getattr(dataset, 'ann_file', '')
    if loads == 'CocoDataset.load_data_list' and os.path.isfile(path):
        masks = any(step.get('with_mask') for step in steps)
        report.faults += [(path, x) for x in coco_faults(path, classes, masks)]
    if loads == 'XMLDataset.load_data_list':
        _read_xml(report, dataset)
    dataset.full_init()
    report.total = len(dataset)
    report.classes = tuple(dataset.metainfo.get('classes') or ())
    faults = []
    if not report.total and not report.faults:
        what = 'do ann_file, data_prefix and the suffixes fit?'
        faults += [f'no sample is found: {what}']
    folders = tuple(getattr(dataset, 'folder_to_idx', None) or ())
    lower = [[x.lower() for x in names] for names in (report.classes, folders)]
    if {*lower[0]} & {*lower[1]} and lower[0] != lower[1]:
        faults += [f'the folders are {folders}, the classes {report.classes}']
    if folders:
        known.append(folders)
        if folders != known[0]:
            faults += [f'the folders {known[0]} elsewhere are {folders}']
        # MMPretrain reads fewer kinds than OpenCV, and passes over the rest.
        unread = {'.webp', '.tiff', '.gif', '.jfif'} - {*dataset.extensions}
        files = Path(dataset.img_prefix).rglob('*')
        unread &= {path.suffix.lower() for path in files}
        if unread:
            faults += [f'images of {unread} are left out: set extensions']
    report.faults += [(str(part.get('data_root') or ''), x) for x in faults]
    return dataset


def _read_xml(report: Report, dataset: BaseDataset) -> None:
    """Go on after files of Pascal VOC's form that cannot be read, and find
    objects that the spelling of their class leaves out."""
    parse, names = dataset.parse_data_info, set()

    def parse_or_report(image: dict) -> dict:
        try:
            content = get(image['xml_path'], dataset.backend_args)
            objects = ElementTree.fromstring(content).iter('object')
            names.update(x.findtext('name') or '' for x in objects)
            return parse(image)
        except Exception as error:
            report.faults.append((image['xml_path'], describe(error)))
            return dict(width=0, height=0, instances=[])

    dataset.parse_data_info = parse_or_report
    dataset.full_init()
    dataset.data_list = [x for x in dataset.data_list if 'img_path' in x]
    classes = dataset.metainfo['classes']
    lower, others = {x.lower() for x in classes}, names - {*classes}
    alike = {name for name in others if name.strip().lower() in lower}
    if alike or (others and others == names):
        what = f'objects named {sorted(alike or others)[:20]} are left out'
        report.faults.append((dataset.ann_file, f'{what}: see classes'))


def _inspect(load: Callable, sample: dict) -> tuple[str, list[str], dict]:
    """Load a sample; return its file, its faults and its labels."""
    name, labels = sample.get('img_path', ''), {}
    faults = [*flat_boxes(sample).values()]
    try:
        sample = load(sample) or {}
        faults += _image_faults(load, sample)
        path = str(sample.get('seg_map_path')).lower()
        if 'gt_seg_map' in sample and path.endswith(('.jpg', '.jpeg')):
            faults.append('the label image is a JPEG, which blurs numbers')
        for key in ('gt_bboxes_labels', 'gt_seg_map', 'gt_label'):
            if sample.get(key) is not None:
                found = np.unique(sample[key], return_counts=True)
                labels = {int(n): int(k) for n, k in zip(*found)}
                break
    except Exception as error:
        faults.append(describe(error))
    return name, faults, labels


def _image_faults(load: Callable, sample: dict) -> Iterator[str]:
    path, image = str(sample.get('img_path')), sample.get('img')
    if image is None or not os.path.isfile(path):
        return
    if image.max() < 16:  # dark, if the file has more than 8 bits
        # Not OpenCV's, which crashes at names in another encoding.
        stored = mmcv.imread(path, 'unchanged')
        if stored is not None and stored.max() > image.max():
            values = f'values up to {stored.max()}, of more than 8 bits'
            yield f'{values}, come to {image.max()} of 255: scale them before'
    turn, (height, width) = header_of(path)[1], image.shape[:2]
    equal = turn in (2, 3, 4) or (turn > 4 and height == width)
    kinds = [getattr(step, 'color_type', '') for step in load.transforms]
    turned = not any('ignore_or' in k or k == 'unchanged' for k in kinds)
    if equal and turned and {'gt_bboxes_labels', 'gt_seg_map'} & {*sample}:
        yield (
            f'the image is turned when it is read (EXIF orientation {turn}) '
            'and its labels, of equal size, are not'
        )


def _label_faults(reports: list[Report], ignore: int) -> Iterator[str]:
    """Find what only the labels of all samples of a split show."""
    objects = sum((report.objects for report in reports), Counter())
    if ignore in objects and objects.keys() <= {0, ignore}:
        yield (
            f'label images hold {sorted(objects)} alone, of which {ignore} is '
            'ignored: look at reduce_zero_label, and at 255 for a class'
        )
    classes = reports[0].classes if objects else ()
    others = objects.keys() - {ignore, *range(len(classes))}
    if classes and others:
        yield f'labels {sorted(others)[:20]} have no name in metainfo.classes'
    never = [name for n, name in enumerate(classes) if not objects[n]]
    if never:
        yield f'{len(never)} classes of metainfo never occur: {never[:20]}'

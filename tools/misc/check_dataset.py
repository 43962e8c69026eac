"""Read a config's data once and list every fault with its file."""

import argparse
import csv
from collections import Counter
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from rich.progress import track

from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.datasets.audit import AuditedDataset, audit
from mmmobilemamba.datasets.coco_checks import check_coco
from mmmobilemamba.datasets.data_checks import (
    class_names,
    coco_file,
    innermost,
    label_range,
)
from mmmobilemamba.datasets.data_paths import check_data

SHOWN = 20


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val'],
        help='data loaders to read; default: train val',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        help='processes that read; default: %(default)s',
    )
    parser.add_argument(
        '--out',
        help='CSV file that takes all faults; the screen has the '
        f'first {SHOWN}',
    )
    add_cfg_options(parser)
    return parser


def check_split(
    cfg: Config, split: str, workers: int
) -> list[tuple[str, str, str]]:
    """Print what the data of a split holds.

    Returned are its faults: data set, file, what is wrong.
    """
    faults = []
    loader = cfg.get(f'{split}_dataloader') or {}
    for key, part in innermost(
        loader.get('dataset'), f'{split}_dataloader.dataset'
    ):
        classes, path = class_names(part), coco_file(part)
        if path:
            report = check_coco(path, classes)
            faults += [
                (key, path, text) for text in report.errors + report.warnings
            ]
            print(f'{path}: {report.empty} pictures without a usable box')
        try:
            dataset = build_dataset(part)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = ' '.join(str(error).split())
            faults.append((key, '', f'{type(error).__name__}: {said}'))
            continue
        audited = AuditedDataset(
            dataset, loading_steps(part), **label_range(cfg.get('model') or {})
        )
        counts, samples = Counter(), Counter()
        for report in track(audit(audited, workers), key, len(audited)):
            if report.fault:
                faults.append((key, report.name, report.fault))
            counts.update(report.labels)
            samples.update(report.labels.keys())
        names = dataset.metainfo.get('classes') or ()
        print_classes(key, len(audited), names, counts, samples)
    return faults


def build_dataset(part: dict):
    """Build a data set that only lists its samples.

    As in a test, so that empty pictures stay in.
    """
    dataset = DATASETS.build(dict(part, pipeline=[], test_mode=True))
    dataset.full_init()
    return dataset


def loading_steps(part: dict) -> list[dict]:
    """Return the steps of a pipeline that load."""
    return [
        step
        for step in part.get('pipeline') or ()
        if str(step['type']).rpartition('.')[2].startswith('Load')
    ]


def print_classes(
    key: str, total: int, names: Sequence[str], counts: Counter, in_: Counter
) -> None:
    """Print how often each class occurs."""
    print(f'{key}: {total} samples')
    width = max([5, *map(len, names)])
    print(f'  {"class":{width}}  {"samples":>9}  {"labels":>12}')
    for number, name in enumerate(names):
        line = f'  {name:{width}}  {in_[number]:9}  {counts[number]:12}'
        print(line if counts[number] else f'{line}  never occurs')


def print_faults(faults: list[tuple[str, str, str]]) -> None:
    for _, path, what in faults[:SHOWN]:
        print(f'- {what}' if path in what else f'- {path}: {what}')
    if len(faults) > SHOWN:
        print(f'- and {len(faults) - SHOWN} more; --out takes all')


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        check_data(cfg, tuple(args.splits))
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    faults = []
    for split in args.splits:
        faults += check_split(cfg, split, args.workers)
    if args.out:
        with atomic_write(args.out) as draft, open(draft, 'w') as file:
            writer = csv.writer(file)
            writer.writerow(('data set', 'file', 'fault'))
            writer.writerows(faults)
        print(f'The faults are in {args.out}')
    if not faults:
        print('No faults found.')
        return 0
    print(f'Faults: {len(faults)}')
    print_faults(faults)
    return 1


if __name__ == '__main__':
    raise SystemExit(main())

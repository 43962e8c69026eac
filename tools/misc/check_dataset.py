"""Read a config's data once and list every fault with its file."""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence

from mmengine.registry import init_default_scope
from rich.progress import track

from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.datasets.audit import Report, audit
from mmmobilemamba.datasets.checked_pipeline import heads_of
from mmmobilemamba.datasets.data_paths import (
    check_data,
    find_datasets,
    find_parts,
    type_name,
)

SHOWN = 20


def print_report(report: Report) -> None:
    """Print what a data set holds and how often each class occurs."""
    empty = f'{report.samples[None]} without usable labels'
    print(f'{report.key}: {report.total} samples, {empty}')
    width = max([5, *map(len, report.classes)])
    print(f'  {"class":{width}}  {"samples":>9}  {"labels":>12}')
    for number, name in enumerate(report.classes):
        counts = report.samples[number], report.objects[number]
        print(f'  {name:{width}}  {counts[0]:9}  {counts[1]:12}')


def one_class_faults(model: dict) -> Iterator[str]:
    """Find heads whose softmax has one class, so that they learn nothing."""
    kinds = '', 'CrossEntropyLoss', 'LabelSmoothLoss'
    for name, head in heads_of(model):
        named = name in ('decode_head', 'auxiliary_head', 'head')
        losses = head.get('loss_decode') or head.get('loss') or {}
        for _, loss in find_parts(losses, ''):
            softmax = type_name(loss) in kinds and not loss.get('use_sigmoid')
            if named and softmax and head.get('num_classes') == 1:
                yield (
                    f'model.{name} has one class under a softmax: take '
                    'num_classes=2, with background, or use_sigmoid=True'
                )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    splits = dict(nargs='+', choices=['train', 'val', 'test'])
    text = 'data loaders to read'
    add('--splits', **splits, default=['train', 'val'], help=text)
    add('--workers', type=int, default=2, help='processes that read')
    text = f'CSV file that takes all faults; the screen has the first {SHOWN}'
    add('--out', help=text)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    # A name of a file may be in another encoding.
    sys.stdout.reconfigure(errors='backslashreplace')
    with user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        check_data(cfg, args.splits)
        if not any([*find_datasets(cfg, split)] for split in args.splits):
            raise ValueError(f'{args.config} has no data of {args.splits}.')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    found = one_class_faults(cfg.get('model') or {})
    faults = [('model', '', fault) for fault in found]
    for report in audit(cfg, args.splits, args.workers, track):
        print_report(report)
        faults += [(report.key, *fault) for fault in report.faults]
    print(f'Faults: {len(faults)}' if faults else 'No faults found.')
    for key, path, what in faults[:SHOWN]:
        told = path and path in what
        print(f'- {what}' if told else f'- {path or key}: {what}')
    if len(faults) > SHOWN:
        print(f'- and {len(faults) - SHOWN} more; --out takes all')
    if args.out:
        options = dict(encoding='utf-8', errors='backslashreplace')
        with user_errors(parser), atomic_write(args.out) as draft:
            with open(draft, 'w', **options) as file:
                writer = csv.writer(file)
                writer.writerow(('data set', 'file', 'fault'))
                writer.writerows(faults)
        print(f'The faults are in {args.out}')
    return min(len(faults), 1)


if __name__ == '__main__':
    raise SystemExit(main())

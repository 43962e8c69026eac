"""Read a config's data once and list every fault with its file."""

import argparse
import csv
from collections.abc import Sequence

from mmengine.registry import init_default_scope
from rich.progress import track

from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.datasets.audit import Report, audit, one_class_faults
from mmmobilemamba.datasets.data_paths import check_data

SHOWN = 20


def print_report(report: Report) -> None:
    """Print what a data set holds and how often each class occurs."""
    print(f'{report.key}: {report.total} samples')
    for remark in report.remarks:
        print(f'  {remark}')
    if not report.objects:
        return
    width = max([5, *map(len, report.classes)])
    print(f'  {"class":{width}}  {"samples":>9}  {"labels":>12}')
    for number, name in enumerate(report.classes):
        counts = report.samples[number], report.objects[number]
        line = f'  {name:{width}}  {counts[0]:9}  {counts[1]:12}'
        print(line if counts[1] else f'{line}  never occurs')


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
    with user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        check_data(cfg, tuple(args.splits))
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    faults = [
        ('model', '', x) for x in one_class_faults(cfg.get('model') or {})
    ]
    for report in audit(cfg, args.splits, args.workers, track):
        print_report(report)
        faults += [(report.key, *fault) for fault in report.faults]
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
    for key, path, what in faults[:SHOWN]:
        told = path and path in what
        print(f'- {what}' if told else f'- {path or key}: {what}')
    if len(faults) > SHOWN:
        print(f'- and {len(faults) - SHOWN} more; --out takes all')
    return 1


if __name__ == '__main__':
    raise SystemExit(main())

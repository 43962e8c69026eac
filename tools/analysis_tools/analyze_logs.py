"""Compare trainings: curves in one figure, final metrics in one table."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmmobilemamba.analysis.figures import check_figure_path, draw_curves
from mmmobilemamba.analysis.run_logs import (
    RunLog,
    default_keys,
    markdown_table,
    read_run,
)
from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.atomic import atomic_write


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='work folder of a training with any of the three libraries',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='names of the runs; by default those of their folders',
    )
    parser.add_argument(
        '--keys',
        nargs='+',
        metavar='KEY',
        help='what to draw, as the logs name it; by default the loss and the '
        "library's leading metrics",
    )
    parser.add_argument(
        '--smooth',
        type=int,
        default=1,
        metavar='N',
        help='average training curves over N records; default: %(default)s',
    )
    parser.add_argument('--title', help='title of the figure')
    parser.add_argument(
        '--out',
        default='outputs/curves.png',
        help='file of the figure; default: %(default)s',
    )
    parser.add_argument(
        '--table', help='file that takes the table, beside the terminal'
    )
    return parser


def read_runs(args: argparse.Namespace) -> list[RunLog]:
    """Read the runs, under names that tell them apart."""
    names = args.names or [None] * len(args.work_dirs)
    if len(names) != len(args.work_dirs):
        raise ValueError(
            f'--names takes one for each of the {len(args.work_dirs)} '
            f'folders, got {len(names)}.'
        )
    runs = [
        read_run(path, name)
        for path, name in zip(args.work_dirs, names, strict=True)
    ]
    if not args.names and len({run.name for run in runs}) < len(runs):
        for run, path in zip(runs, args.work_dirs, strict=True):
            run.name = str(Path(path))
    return runs


def check_keys(keys: list[str], runs: list[RunLog]) -> None:
    """Refuse values that no run has logged."""
    known = {
        key
        for run in runs
        for records in (run.train, run.val)
        for record in records.values()
        for key in record
    }
    for key in keys:
        if key not in known:
            raise ValueError(
                f'--keys: no run has {key!r}; logged: '
                f'{", ".join(sorted(known))}.'
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        check_figure_path(args.out)
        if args.smooth < 1:
            raise ValueError(f'--smooth must be 1 or more: {args.smooth}.')
        runs = read_runs(args)
        check_keys(args.keys or [], runs)
        keys = args.keys or default_keys(runs)
        if not keys:
            raise ValueError('The logs hold no loss and no metric.')
        draw_curves(runs, keys, args.out, args.smooth, args.title)
        table = markdown_table(runs)
        if args.table:
            with atomic_write(args.table) as draft:
                draft.write_text(table + '\n', encoding='utf-8')
    print(table)
    print(f'\nCurves are in {args.out}')


if __name__ == '__main__':
    main()

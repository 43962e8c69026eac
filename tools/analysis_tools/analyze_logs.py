"""Compare trainings: curves in one figure, final metrics in one table."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.analysis.figures import check_figure_path
from mmmobilemamba.analysis.run_logs import (
    default_keys,
    draw_curves,
    metric_table,
    read_run,
)
from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.atomic import atomic_write


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    text = 'work folder of a training with any of the three libraries'
    add('work_dirs', nargs='+', metavar='WORK_DIR', help=text)
    add('--names', nargs='+', help='of the runs; default: their folders')
    text = 'what to draw, as the logs name it; by default the loss and the '
    text += "library's leading metrics"
    add('--keys', nargs='+', default=[], metavar='KEY', help=text)
    text = 'average training curves over N records; default: %(default)s'
    add('--smooth', type=int, default=1, metavar='N', help=text)
    add('--title', help='title of the figure')
    add('--out', default='outputs/curves.png', help='default: %(default)s')
    add('--table', help='file that takes the table, beside the terminal')
    args = parser.parse_args(argv)
    with user_errors(parser):
        check_figure_path(args.out)
        names = args.names or args.work_dirs
        if len(names) != len(args.work_dirs):
            raise ValueError(
                f'--names takes one for each of the {len(args.work_dirs)} '
                f'folders, got {len(names)}.'
            )
        runs = [read_run(*pair) for pair in zip(args.work_dirs, names)]
        records = [r for run in runs for r in run.train.values()]
        records += [r for run in runs for r in run.val.values()]
        known = sorted({key for record in records for key in record})
        if unknown := set(args.keys) - set(known):
            raise ValueError(
                f'--keys: no run has {", ".join(unknown)}; logged: '
                f'{", ".join(known)}.'
            )
        keys = args.keys or default_keys(runs)
        if not keys or args.smooth < 1:
            raise ValueError('Nothing to draw, or --smooth is below 1.')
        draw_curves(runs, keys, args.out, args.smooth, args.title)
        table = metric_table(runs)
        if args.table:
            with atomic_write(args.table) as draft:
                draft.write_text(table + '\n', encoding='utf-8')
    print(f'{table}\n\nCurves are in {args.out}')


if __name__ == '__main__':
    main()

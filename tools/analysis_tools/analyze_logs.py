"""Compare trainings: curves in one figure, final metrics in one table."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.analysis.run_logs import (
    draw_curves,
    leading_metrics,
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
    text = 'what to draw, as the logs name it; by default the loss and the '
    text += "library's leading metrics"
    add('--keys', nargs='+', metavar='KEY', help=text)
    text = 'average training curves over N records; default: %(default)s'
    add('--smooth', type=int, default=1, metavar='N', help=text)
    add('--out', default='outputs/curves.png', help='default: %(default)s')
    add('--table', help='file that takes the table, beside the terminal')
    args = parser.parse_args(argv)
    with user_errors(parser):
        runs = [read_run(folder, folder) for folder in args.work_dirs]
        keys = args.keys or ['loss', *leading_metrics(runs)]
        for key in keys:
            if not any(run.curve(key)[0] for run in runs):
                raise ValueError(
                    f'--keys: no run has logged {key}; measured: '
                    f'{", ".join(leading_metrics(runs))}.'
                )
        draw_curves(runs, keys, args.out, args.smooth)
        table = metric_table(runs)
        if args.table:
            with atomic_write(args.table) as draft:
                draft.write_text(table + '\n', encoding='utf-8')
    print(f'{table}\n\nCurves are in {args.out}')


if __name__ == '__main__':
    main()

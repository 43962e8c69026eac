"""Train a detector, a segmentor or a classifier."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis import command_line, options
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.strides import check_strides
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.checkpoints.start import model_of, settle_start
from mmmobilemamba.datasets.data_checks import set_data_checks
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    add(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a value, or with "auto", '
        'from the latest one of the work dir if there is one',
    )
    add(
        '--amp',
        action='store_true',
        help='mixed precision: float16 with CUDA, bfloat16 on a CPU',
    )
    add(
        '--amp-dtype',
        choices=['float16', 'bfloat16'],
        help='mixed precision in this type; a CPU has bfloat16 only',
    )
    add(
        '--channels-last',
        action='store_true',
        help='keep weights and batches in channels_last memory format',
    )
    add(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size of this run',
    )
    add(
        '--deterministic',
        action='store_true',
        help='compute the same bits in every run on one machine; operators '
        'that cannot, some of CUDA, are an error',
    )
    add(
        '--max-faulty',
        type=int,
        default=50,
        metavar='N',
        help='leave out that many images that cannot be read, naming each, '
        'before it is an error; default: %(default)s',
    )
    command_line.add_run_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    command_line.export_local_rank(args)
    allow_mmengine_checkpoints()
    with command_line.user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        cfg.launcher = args.launcher
        options.set_train_options(
            cfg,
            args.amp,
            args.amp_dtype,
            args.channels_last,
            args.auto_scale_lr,
            args.deterministic,
        )
        check_data(cfg, ('train', 'val'))
        weights = options.set_start(cfg, args.resume)
        options.set_work_dir(cfg, args.work_dir)
        set_data_checks(cfg, ('train', 'val'), args.max_faulty)
        setup_distributed(cfg)
        runner = options.build_runner(cfg)
        settle_start(runner, weights)
        options.check_batches(runner)
        check_strides(model_of(runner))
        runner.logger.info(
            'To look for faults in the data: '
            f'python tools/misc/check_dataset.py {args.config}'
        )
    with command_line.run_errors(parser):
        runner.train()
    del runner
    leave_distributed()


if __name__ == '__main__':
    main()

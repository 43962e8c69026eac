"""Train a detector, a segmentor or a classifier."""

import argparse
from collections.abc import Sequence

from mmengine.registry import RUNNERS

from mmmobilemamba.apis import command_line, options
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.strides import check_strides
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.checkpoints.start import model_of, settle_start
from mmmobilemamba.datasets.checked_pipeline import set_data_checks
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    text = 'go on from this checkpoint; without a value, or with "auto", from '
    text += 'the latest one of the work dir if there is one'
    add('--resume', nargs='?', const='auto', help=text)
    text = 'mixed precision: float16 with CUDA, bfloat16 on a CPU'
    add('--amp', action='store_true', help=text)
    text = 'mixed precision in this type; a CPU has bfloat16 only'
    add('--amp-dtype', choices=['float16', 'bfloat16'], help=text)
    text = 'keep weights and batches in channels_last memory format'
    add('--channels-last', action='store_true', help=text)
    text = 'scale the learning rate to the batch size of this run'
    add('--auto-scale-lr', action='store_true', help=text)
    text = 'compute the same bits in every run on one machine; operators that '
    text += 'cannot, some of CUDA, are an error'
    add('--deterministic', action='store_true', help=text)
    text = 'leave out that many images that cannot be read, naming each, '
    text += 'before it is an error; default: %(default)s'
    add('--max-faulty', type=int, default=50, metavar='N', help=text)
    command_line.add_run_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with command_line.user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        weights = options.set_train_options(cfg, args)
        check_data(cfg, ('train', 'val'))
        set_data_checks(cfg, ('train', 'val'), args.max_faulty)
        setup_distributed(cfg)
        runner = RUNNERS.build(cfg)
        settle_start(runner, weights)
        options.check_training(runner)
        check_strides(model_of(runner))
        runner.logger.info(
            'To look for faults in the data: '
            f'python tools/misc/check_dataset.py {args.config}'
        )
    with command_line.user_errors(parser, running=True):
        runner.train()
    del runner
    leave_distributed()


if __name__ == '__main__':
    main()

"""Train a detector, a segmentor or a classifier."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from mmmobilemamba.apis.command_line import (
    add_run_arguments,
    export_local_rank,
    run_errors,
    user_errors,
)
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.options import (
    build_runner,
    set_auto_scale_lr,
    set_channels_last,
    set_checkpoints,
    set_deterministic,
    set_loader_defaults,
    set_precision,
    set_work_dir,
)
from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
from mmmobilemamba.checkpoints.start import (
    check_match,
    check_resume,
    checkpoints_of,
    choose_checkpoint,
)
from mmmobilemamba.datasets.data_checks import set_data_checks
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a value, or with "auto", '
        'from the latest one of the work dir if there is one',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision: float16 with CUDA, bfloat16 on a CPU',
    )
    parser.add_argument(
        '--amp-dtype',
        choices=['float16', 'bfloat16'],
        help='mixed precision in this type; a CPU has bfloat16 only',
    )
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='keep weights and batches in channels_last memory format',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size of this run',
    )
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='compute the same bits in every run on one machine; operators '
        'that cannot, some of CUDA, are an error',
    )
    parser.add_argument(
        '--max-faulty',
        type=int,
        default=50,
        metavar='N',
        help='leave out that many pictures that cannot be read, naming each, '
        'before it is an error; default: %(default)s',
    )
    add_run_arguments(parser)
    return parser


def prepare(args: argparse.Namespace) -> tuple[Config, str | None]:
    """Read the config and check all that the training will need.

    Returned are the config and what :func:`set_start` returned.
    """
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    set_precision(cfg, args.amp, args.amp_dtype)
    if args.channels_last:
        set_channels_last(cfg)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    if args.deterministic:
        set_deterministic(cfg)
    check_data(cfg, ('train', 'val'))
    set_work_dir(cfg, args.work_dir)
    set_checkpoints(cfg)
    weights = set_start(cfg, args.resume)
    set_loader_defaults(cfg)
    set_data_checks(cfg, ('train', 'val'), args.max_faulty)
    setup_distributed(cfg)
    return cfg, weights


def set_start(cfg: Config, resume: str | None) -> str | None:
    """Settle which checkpoint the training starts from, if any.

    Where it resumes by itself, the choice waits for the network. Returned
    are the weights to start from should no checkpoint be fit to resume from.
    """
    weights = cfg.get('load_from')
    if resume not in (None, 'auto'):
        cfg.resume, cfg.load_from, weights = True, resume, None
    elif resume == 'auto' or (cfg.get('resume') and not weights):
        # The first start of a run that resumes by itself is an ordinary one.
        cfg.resume = bool(checkpoints_of(cfg.work_dir))
        cfg.load_from = None if cfg.resume else weights
    for path in filter(None, (weights, cfg.get('load_from'))):
        check_checkpoint_file(path)
    if cfg.get('resume') and cfg.load_from:
        check_resume(cfg.load_from)
    return weights


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    export_local_rank(args)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        cfg, weights = prepare(args)
    runner = build_runner(cfg)
    with user_errors(parser):
        choose_checkpoint(runner, weights)
        if cfg.get('load_from'):
            check_match(
                runner.model, cfg.load_from, partial=not cfg.get('resume')
            )
    with run_errors(parser):
        runner.train()
    del runner
    leave_distributed()


if __name__ == '__main__':
    main()

"""Evaluate a checkpoint of a detector, a segmentor or a classifier."""

import argparse
import os
import sys
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mmmobilemamba.apis.command_line import (
    add_run_arguments,
    export_local_rank,
    run_errors,
    user_errors,
)
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.options import (
    build_runner,
    set_loader_defaults,
    set_tta,
    set_visualization,
    set_work_dir,
)
from mmmobilemamba.apis.speed_up import add_speed_arguments, speed_up
from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
from mmmobilemamba.checkpoints.start import check_match
from mmmobilemamba.datasets.data_checks import set_data_checks
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.deploy import is_onnx
from mmmobilemamba.deploy.arguments import (
    add_runtime_arguments,
    runtime_of,
)
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument(
        'checkpoint', help='checkpoint file of its model, or its .onnx file'
    )
    parser.add_argument(
        '--out',
        help='where the predictions go: a .pkl file for detectors and '
        'classifiers, a folder of label images for segmentors',
    )
    parser.add_argument(
        '--show', action='store_true', help='show each image in a window'
    )
    parser.add_argument('--show-dir', help='folder that takes drawn images')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that a window stays; default: %(default)s',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation'
    )
    parser.add_argument(
        '--allow-partial',
        action='store_true',
        help='accept a checkpoint that fits the model only in part',
    )
    add_speed_arguments(parser)
    add_runtime_arguments(parser)
    add_run_arguments(parser)
    return parser


def prepare(args: argparse.Namespace) -> Config:
    """Read the config and check all that the test will need."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    check_checkpoint_file(args.checkpoint)
    cfg.load_from, cfg.resume = args.checkpoint, False
    runtime = runtime_of(args)
    if is_onnx(args.checkpoint):
        if args.tta:
            raise ValueError('--tta needs a checkpoint, not an .onnx file.')
        # Needs what requirements/deploy.txt names.
        from mmmobilemamba.deploy.onnx_model import use_onnx

        use_onnx(cfg, args.checkpoint, **runtime)
    check_data(cfg, ('test',))
    if args.show or args.show_dir:
        if args.show:
            check_display()
        set_visualization(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        set_tta(cfg)
    if args.out:
        check_out(cfg, args.out)
    set_work_dir(cfg, args.work_dir)
    set_loader_defaults(cfg)
    set_data_checks(cfg, ('test',))
    setup_distributed(cfg)
    return cfg


def check_display() -> None:
    """Refuse windows on a machine that can open none."""
    displays = ('DISPLAY', 'WAYLAND_DISPLAY')
    if sys.platform == 'linux' and not any(map(os.environ.get, displays)):
        raise ValueError('--show needs a display; use --show-dir instead.')


def check_out(cfg: Config, out: str) -> None:
    """Tell a segmentor's metric where to write; check the name of a file."""
    if cfg.get('default_scope') == 'mmseg':
        metrics = cfg.test_evaluator
        for metric in [metrics] if isinstance(metrics, dict) else metrics:
            metric.output_dir = out
    elif not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out must end in .pkl or .pickle, got {out}.')


def dump_predictions(runner: Runner, out: str) -> None:
    """Add the metric that writes the predictions of a test to a file."""
    scope = runner.cfg.get('default_scope')
    if scope == 'mmseg':
        return
    # MMDetection has one of its own, which packs masks.
    kind = 'DumpDetResults' if scope == 'mmdet' else 'DumpResults'
    runner.test_evaluator.metrics.append(
        METRICS.build(dict(type=kind, out_file_path=out))
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    export_local_rank(args)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        cfg = prepare(args)
    runner = build_runner(cfg)
    with user_errors(parser):
        if not is_onnx(args.checkpoint):
            check_match(
                runner.model, args.checkpoint, partial=args.allow_partial
            )
        if args.deploy or args.compile:
            # Fusing changes the weights' names: they are loaded before.
            runner.load_or_resume()
            speed_up(runner.model, args.deploy, args.compile)
    if args.out:
        dump_predictions(runner, args.out)
    with run_errors(parser):
        runner.test()
    rank = runner.rank
    del runner
    leave_distributed()
    for what, place in (('Pictures', args.show_dir), ('Results', args.out)):
        if place and rank == 0:
            print(f'{what} are in {place}')


if __name__ == '__main__':
    main()

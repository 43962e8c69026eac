"""Train one detector or segmentor with several backbones and compare them."""

import argparse
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config

from mmmobilemamba.analysis.comparison import (
    Training,
    check_least,
    describe_device,
    measure_speeds,
    run_or_exit,
    write_text,
    write_trainings,
)
from mmmobilemamba.analysis.comparison_report import (
    Compared,
    draw_comparison,
    make_table,
)
from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.analysis.input_shapes import first_shape
from mmmobilemamba.analysis.run_logs import read_run
from mmmobilemamba.apis.backbone_swap import (
    BackboneChoice,
    parse_backbones,
    swap_backbone,
)
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
BACKBONES = [
    't2',
    'efficientvit_m4',
    'mambaout_femto',
    'host:resnet18',
    'host:mobilenet_v2',
]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        'config',
        help='config of a detector or segmentor; all but its backbone, and '
        "the neck's fit to that, stays as it is",
    )
    parser.add_argument(
        '--backbones',
        nargs='+',
        default=BACKBONES,
        metavar='NAME[=FILE]',
        help='t2 to b4, names of timm, host:resnet18 or host:mobilenet_v2; '
        'with a file, from these weights',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        default=[0, 1, 2],
        help='a training of every backbone for each',
    )
    parser.add_argument(
        '--metric',
        help='name in the logs; what the library is judged by if not given',
    )
    parser.add_argument(
        '--speed-batch',
        type=int,
        default=1,
        help='pictures per step where images per second are measured; 0 '
        'measures none',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/backbones'),
        help='folder that takes everything',
    )
    parser.add_argument(
        '--report-only',
        action='store_true',
        help='train nothing: write the table of what is finished',
    )
    add_cfg_options(parser)
    return parser


def check_args(args: argparse.Namespace) -> None:
    """Raise where an argument is out of range."""
    check_least(vars(args), dict(speed_batch=0))
    check_least(dict(seeds=min(args.seeds)), dict(seeds=0))
    if len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f'--seeds must differ, got {args.seeds}.')


def plan(
    args: argparse.Namespace,
) -> tuple[list[Compared], dict[tuple[str, int], Training]]:
    """Check everything, count every model and write every config."""
    check_args(args)
    choices = parse_backbones(args.backbones)
    base = load_config(args.config, args.cfg_options)
    check_data(base, ('train', 'val'))
    if 'max_iters' in base.train_cfg:
        # By default mmengine notes all evaluations at epoch 0 then.
        base.default_hooks.logger.log_metric_by_epoch = False
    args.out = args.out.absolute()
    args.size = first_shape(base)
    results, configs, keys = [], {}, []
    for choice in choices:
        cfg = deepcopy(base)
        swap_backbone(cfg, choice)
        results.append(count(choice, cfg, args.size))
        for seed in args.seeds:
            cfg = deepcopy(cfg)
            cfg.setdefault('randomness', {})
            cfg.randomness.seed = seed
            name = f'{choice.slug}_seed{seed}'
            cfg.work_dir = str(args.out / name)
            configs[args.out / 'configs' / f'{name}.py'] = cfg
            keys.append((choice.label, seed))
    trainings = dict(zip(keys, write_trainings(configs), strict=True))
    if args.report_only:
        trainings = {
            key: training
            for key, training in trainings.items()
            if training.last_checkpoint.is_file()
        }
        if not trainings:
            raise FileNotFoundError(f'{args.out} has no finished training.')
    return results, trainings


def count(choice: BackboneChoice, cfg: Config, size) -> Compared:
    model = build_model(cfg)
    cost = count_complexity(model, size)
    own = sum(p.numel() for p in model.backbone.parameters())
    return Compared(choice.label, cost.params, cost.macs, own)


def add_result(
    result: Compared, seed: int, training: Training, metric: str
) -> None:
    """Take in what a finished training came to."""
    result.values[seed] = training.evaluate(metric)
    result.runs.append(read_run(training.work_dir))
    result.peak_bytes = max(result.peak_bytes, training.peak_bytes)
    result.seconds.append(training.cost['seconds'])


def report(results: list[Compared], args: argparse.Namespace) -> None:
    """Write the table and the figure of what is there so far."""
    done = [result for result in results if result.values]
    settings = dict(
        config=Path(args.config).stem,
        pictures=f'{args.size[0]}x{args.size[1]}',
        batch=args.batch,
        device=describe_device(),
        torch=torch.__version__,
    )
    summary = dict(
        metric=args.metric,
        settings=settings,
        results=[result.as_dict() for result in done],
    )
    text = json.dumps(summary, indent=2) + '\n'
    write_text(args.out / 'comparison.json', text)
    table = make_table(done, args.metric, settings)
    write_text(args.out / 'comparison.md', table)
    draw_comparison(done, args.metric, args.out / 'comparison.png')


def train_all(
    results: list[Compared],
    trainings: dict[tuple[str, int], Training],
    args: argparse.Namespace,
) -> None:
    by_label = {result.label: result for result in results}
    # Seed by seed, so that what is there early is fair.
    order = sorted(trainings, key=lambda key: args.seeds.index(key[1]))
    for number, (label, seed) in enumerate(order, 1):
        training = trainings[label, seed]
        print(f'\n=== {number}/{len(order)} {label}, seed {seed}', flush=True)
        if not args.report_only:
            run_or_exit(training, TRAIN)
        args.metric = args.metric or training.main_metric()
        add_result(by_label[label], seed, training, args.metric)
        value = by_label[label].values[seed]
        print(f'{args.metric} {value:.4g}', flush=True)
        report(results, args)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        results, trainings = plan(args)
    first = next(iter(trainings.values()))
    args.batch = first.cfg.train_dataloader.batch_size
    print(f'Everything goes to {args.out}', flush=True)
    train_all(results, trainings, args)
    if args.speed_batch:
        print('\n=== Images per second', flush=True)
        # Any seed's, since weights do not matter.
        configs = {
            label: training.config
            for (label, _), training in trainings.items()
        }
        speeds = measure_speeds(configs, args.size, args.speed_batch)
        for result in results:
            result.speeds = speeds.get(result.label, {})
        report(results, args)
    print((args.out / 'comparison.md').read_text())
    for suffix in ('md', 'json', 'png'):
        print(args.out / f'comparison.{suffix}')


if __name__ == '__main__':
    main()

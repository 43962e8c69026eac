"""Train classifiers from scratch by one recipe and compare them in a table."""

import argparse
import json
from collections.abc import Sequence
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
from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.analysis.figures import draw_curves
from mmmobilemamba.analysis.run_logs import read_run
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import check_host
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.apis.scratch_recipe import check_model_names, make_config
from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
from mmmobilemamba.datasets.image_folders import ImageSplit, split_images
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
MODEL_NAMES = ['t2', 'mambaout_femto', 'mobilenetv2_100', 'efficientvit_m2']
ACCURACY = 'accuracy/top1'


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        'data',
        type=Path,
        help='folder with train and val (or test), or with a subfolder of '
        'images per class',
    )
    parser.add_argument(
        '--models',
        nargs='+',
        default=MODEL_NAMES,
        metavar='NAME',
        help='t2 to b4, or names of timm',
    )
    for name, default, text in (
        ('size', 64, 'side of the pictures in pixels'),
        ('epochs', 20, 'epochs of every model'),
        ('batch-size', 50, 'images per step'),
        ('workers', 1, 'processes that load images'),
        ('seed', 0, 'seed of weights, order and augmentation'),
    ):
        parser.add_argument(f'--{name}', type=int, default=default, help=text)
    parser.add_argument(
        '--lr', type=float, default=1e-3, help='peak learning rate'
    )
    parser.add_argument(
        '--val-share',
        type=float,
        default=0.2,
        help='share of each class that is held out where the data has no '
        'two folders',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/comparison'),
        help='folder that takes everything',
    )
    parser.add_argument(
        '--speed-only',
        action='store_true',
        help='train nothing: measure the images per second again',
    )
    add_cfg_options(parser)
    return parser


def check_args(args: argparse.Namespace) -> None:
    """Raise where an argument is out of range."""
    least = dict(size=32, epochs=1, batch_size=2, workers=0, seed=0)
    check_least(vars(args), least)
    if not args.lr > 0:
        raise ValueError(f'--lr must be above 0, got {args.lr}.')


def write_lists(split: ImageSplit, folder: Path) -> None:
    """Write who trains on which image."""
    for name, images in (('train', split.train), ('val', split.val)):
        lines = ''.join(f'{path} {label}\n' for path, label in images)
        write_text(folder / f'{name}.txt', lines)


def plan(args: argparse.Namespace) -> dict[str, Training]:
    """Check everything and write the config of every model."""
    check_args(args)
    check_host(Config(dict(default_scope='mmpretrain')))
    check_model_names(args.models)
    split = split_images(args.data, args.val_share, args.seed)
    args.out = args.out.absolute()
    args.train_images, args.val_images = len(split.train), len(split.val)
    configs = {}
    for name in args.models:
        cfg = make_config(
            name,
            split,
            args.out / 'lists',
            size=args.size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
            workers=args.workers,
        )
        cfg.merge_from_dict(args.cfg_options or {})
        cfg.work_dir = str(args.out / name)
        configs[args.out / 'configs' / f'{name}.py'] = cfg
    trainings = dict(zip(args.models, write_trainings(configs), strict=True))
    write_lists(split, args.out / 'lists')
    if args.speed_only:
        for training in trainings.values():
            check_checkpoint_file(str(training.last_checkpoint))
    return trainings


def describe(name: str, training: Training, size: int) -> dict:
    """Return what a finished training came to."""
    cost = count_complexity(build_model(training.cfg), (size, size))
    return dict(
        model=name,
        top1=round(training.evaluate(ACCURACY), 2),
        params=cost.params,
        macs=cost.macs,
        train_seconds=round(training.cost['seconds'], 1),
    )


def make_table(summary: dict) -> str:
    """Lay the summary out as a table of Markdown."""
    rows = [
        '| model | top-1 % | parameters M | MACs M | images/s '
        '| images/s fused |',
        '|---|---|---|---|---|---|',
    ]
    for result in summary['results']:
        speed = result.get('images_per_second', {})
        cells = [
            result['model'],
            f'{result["top1"]:.1f}',
            f'{result["params"] / 1e6:.2f}',
            f'{result["macs"] / 1e6:.1f}',
            speed.get('plain', '-'),
            speed.get('fused', '-'),
        ]
        rows.append(f'| {" | ".join(map(str, cells))} |')
    settings = ', '.join(f'{k} {v}' for k, v in summary['settings'].items())
    return '\n'.join([*rows, '', settings, ''])


def report(trainings: dict[str, Training], results: list, args) -> None:
    """Write the table and the curves of what is there so far."""
    names = ('train_images', 'val_images', 'size', 'epochs', 'batch_size')
    settings = {name: getattr(args, name) for name in (*names, 'lr', 'seed')}
    summary = dict(
        settings=dict(
            data=args.data.name,
            **settings,
            device=describe_device(),
            torch=torch.__version__,
        ),
        results=results,
    )
    write_text(
        args.out / 'comparison.json', json.dumps(summary, indent=2) + '\n'
    )
    write_text(args.out / 'comparison.md', make_table(summary))
    runs = [read_run(trainings[r['model']].work_dir) for r in results]
    draw_curves(runs, ['loss', ACCURACY], args.out / 'curves.png', smooth=8)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        trainings = plan(args)
    print(f'Everything goes to {args.out}', flush=True)
    results = []
    for number, (name, training) in enumerate(trainings.items(), 1):
        print(f'\n=== {number}/{len(trainings)} {name}', flush=True)
        if not args.speed_only:
            run_or_exit(training, TRAIN)
        results.append(describe(name, training, args.size))
        print('top-1 {top1} %'.format(**results[-1]), flush=True)
        report(trainings, results, args)
    print('\n=== Images per second', flush=True)
    configs = {name: t.config for name, t in trainings.items()}
    size = (args.size, args.size)
    speeds = measure_speeds(configs, size, args.batch_size)
    for result in results:
        result['images_per_second'] = speeds[result['model']]
    report(trainings, results, args)
    print((args.out / 'comparison.md').read_text())
    for name in ('comparison.md', 'comparison.json', 'curves.png'):
        print(args.out / name)


if __name__ == '__main__':
    main()

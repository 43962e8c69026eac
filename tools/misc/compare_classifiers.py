"""Train classifiers from scratch by one recipe and compare them in a table."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmmobilemamba.analysis.candidates import build_candidate
from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.analysis.figures import draw_curves
from mmmobilemamba.analysis.preparation import make_pictures, prepare
from mmmobilemamba.analysis.requests import Form, Request
from mmmobilemamba.analysis.run_logs import read_run
from mmmobilemamba.analysis.timing import time_interleaved
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints
from mmmobilemamba.utils.checkpoint import check_checkpoint_file
from mmmobilemamba.utils.cli import add_cfg_options, user_errors
from mmmobilemamba.utils.config import check_host
from mmmobilemamba.utils.files import whole_file
from mmmobilemamba.utils.image_split import ImageSplit, split_images
from mmmobilemamba.utils.inference import build_model
from mmmobilemamba.utils.run_setup import build_runner, set_loader_defaults
from mmmobilemamba.utils.scratch_recipe import check_model_names, make_config

ROOT = Path(__file__).resolve().parents[2]
MODEL_NAMES = ['t2', 'mambaout_femto', 'mobilenetv2_100', 'efficientvit_m2']
ACCURACY = 'accuracy/top1'
FORMS = dict(plain=Form(deploy=False), fused=Form())
SPEED_ROUNDS = 20
SPEED_SECONDS = 60


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
    for name, low in dict(
        size=32, epochs=1, batch_size=2, workers=0, seed=0
    ).items():
        if getattr(args, name) < low:
            option = name.replace('_', '-')
            raise ValueError(
                f'--{option} must be {low} or more, got {getattr(args, name)}.'
            )
    if not args.lr > 0:
        raise ValueError(f'--lr must be above 0, got {args.lr}.')


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as draft:
        draft.write_text(text)


def write_lists(split: ImageSplit, folder: Path) -> None:
    """Write who trains on which image."""
    for name, images in (('train', split.train), ('val', split.val)):
        lines = ''.join(f'{path} {label}\n' for path, label in images)
        write_text(folder / f'{name}.txt', lines)


def write_configs(args: argparse.Namespace) -> dict[str, Path]:
    """Check everything and write the config of every model."""
    check_args(args)
    check_host(Config(dict(default_scope='mmpretrain')))
    check_model_names(args.models)
    split = split_images(args.data, args.val_share, args.seed)
    args.out = args.out.absolute()
    args.train_images, args.val_images = len(split.train), len(split.val)
    configs, old = {}, []
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
        path = args.out / 'configs' / f'{name}.py'
        # Its checkpoints fit neither other data nor another schedule.
        if path.is_file() and path.read_text() != cfg.pretty_text:
            old += [str(p) for p in (args.out / name).glob('*.pth')]
        configs[name] = (path, cfg.pretty_text)
    if old:
        raise ValueError(
            'These were trained with other settings; delete them, or name '
            f'another folder with --out: {", ".join(old)}.'
        )
    write_lists(split, args.out / 'lists')
    for path, text in configs.values():
        write_text(path, text)
    return {name: path for name, (path, _) in configs.items()}


def last_checkpoint(cfg: Config) -> Path:
    return Path(cfg.work_dir) / f'epoch_{cfg.train_cfg.max_epochs}.pth'


def train(config: Path) -> None:
    """Train through tools/train.py, going on where it was interrupted."""
    cfg = Config.fromfile(config)
    if last_checkpoint(cfg).is_file():
        return
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'train.py'),
        str(config),
        '--resume',
        'auto',
    ]
    print('$', *command, flush=True)
    spent = Path(cfg.work_dir) / 'train_seconds.json'
    seconds = json.loads(spent.read_text()) if spent.is_file() else 0.0
    start = time.perf_counter()
    try:
        code = subprocess.run(command).returncode
    finally:
        # The parts of an interrupted training add up.
        seconds += time.perf_counter() - start
        write_text(spent, json.dumps(seconds))
    if code:
        sys.exit(f'error: training ended with exit status {code}, see above')


def evaluate(config: Path) -> float:
    """Return the accuracy of a finished training on the held-out images."""
    cfg = Config.fromfile(config)
    epochs, accuracies = read_run(cfg.work_dir).curve(ACCURACY)
    if epochs and epochs[-1] == cfg.train_cfg.max_epochs:
        return accuracies[-1]
    # It was stopped between the last checkpoint and its evaluation.
    set_loader_defaults(cfg)
    cfg.load_from = str(last_checkpoint(cfg))
    cfg.work_dir = str(Path(cfg.work_dir) / 'evaluation')
    return build_runner(cfg).test()[ACCURACY]


def describe(name: str, config: Path, size: int) -> dict:
    """Return what a finished training came to."""
    cfg = Config.fromfile(config)
    cost = count_complexity(build_model(cfg), (size, size))
    spent = Path(cfg.work_dir) / 'train_seconds.json'
    return dict(
        model=name,
        top1=round(evaluate(config), 2),
        params=cost.params,
        macs=cost.macs,
        train_seconds=round(json.loads(spent.read_text()), 1),
    )


def measure_speed(configs: dict[str, Path], args: argparse.Namespace) -> dict:
    """Return the images per second of every network, plain and fused."""
    device, size = get_device(), (args.size, args.size)
    calls = {}
    for name, config in configs.items():
        for key, form in FORMS.items():
            request = Request(name, 'config', str(config), size, form)
            call = prepare(build_candidate(request), form, device)
            images = make_pictures(args.batch_size, size, form, device)
            calls[name, key] = partial(call, images)
    with torch.inference_mode():
        times = time_interleaved(
            calls, SPEED_ROUNDS, budget=SPEED_SECONDS, device=device
        )
    speeds = {}
    for (name, key), timing in times.items():
        rate = args.batch_size / timing.median
        speeds.setdefault(name, {})[key] = round(rate, 1)
    return speeds


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


def report(configs: dict[str, Path], results: list, args) -> None:
    """Write the table and the curves of what is there so far."""
    summary = dict(
        settings=dict(
            data=args.data.name,
            train_images=args.train_images,
            val_images=args.val_images,
            size=args.size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
            device=describe_device(),
            torch=torch.__version__,
        ),
        results=results,
    )
    write_text(
        args.out / 'comparison.json', json.dumps(summary, indent=2) + '\n'
    )
    write_text(args.out / 'comparison.md', make_table(summary))
    runs = [
        read_run(Path(Config.fromfile(configs[result['model']]).work_dir))
        for result in results
    ]
    draw_curves(runs, ['loss', ACCURACY], args.out / 'curves.png', smooth=8)


def describe_device() -> str:
    device = get_device()
    if device == 'cuda':
        return torch.cuda.get_device_name()
    return f'{device}, {torch.get_num_threads()} threads'


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        configs = write_configs(args)
        if args.speed_only:
            for config in configs.values():
                cfg = Config.fromfile(config)
                check_checkpoint_file(str(last_checkpoint(cfg)))
    print(f'Everything goes to {args.out}', flush=True)
    results = []
    for number, (name, config) in enumerate(configs.items(), 1):
        print(f'\n=== {number}/{len(configs)} {name}', flush=True)
        if not args.speed_only:
            train(config)
        results.append(describe(name, config, args.size))
        print('top-1 {top1} %'.format(**results[-1]), flush=True)
        report(configs, results, args)
    print('\n=== Images per second', flush=True)
    speeds = measure_speed(configs, args)
    for result in results:
        result['images_per_second'] = speeds[result['model']]
    report(configs, results, args)
    print((args.out / 'comparison.md').read_text())
    for name in ('comparison.md', 'comparison.json', 'curves.png'):
        print(args.out / name)


if __name__ == '__main__':
    main()

"""Train one detector, segmentor or classifier with several backbones.

All but the backbone, and the neck's or the head's fit to it, stays as the
config says. Finished trainings are taken as they are, interrupted ones go on.
"""

import argparse
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.device import get_device

from mmmobilemamba.analysis.benchmark import Form, Settings, run_benchmark
from mmmobilemamba.analysis.compare import (
    Compared,
    draw_comparison,
    leading_metric,
    make_table,
    slug,
    swap_backbone,
)
from mmmobilemamba.analysis.networks import first_size, parse_network
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.training import run_training, write_training_config
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
BACKBONES = 't2 efficientvit_m4 mambaout:femto mobilenetv2_100'.split()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config of a detector, segmentor or classifier')
    add(
        '--backbones',
        nargs='+',
        default=BACKBONES,
        metavar='NAME[=FILE]',
        help='t2 to b4, names of timm, host:resnet18 or host:mobilenet_v2; '
        'with a file, from these weights',
    )
    add(
        '--seeds',
        nargs='+',
        type=int,
        default=[0, 1, 2],
        help='a training of every backbone for each',
    )
    add('--metric', help='name in the logs; default: the leading one')
    add('--speed-batch', type=int, default=1, help='images per timed call')
    add(
        '--out',
        type=Path,
        default=Path('work_dirs/backbones'),
        help='folder that takes everything',
    )
    add('--report-only', action='store_true', help='of what is finished')
    add_cfg_options(parser)
    return parser


def report(results: list[Compared], args: argparse.Namespace) -> None:
    """Write the table and the figure of what is there so far."""
    done = [result for result in results if result.values]
    settings = dict(
        config=Path(args.config).stem,
        images='x'.join(map(str, args.size)),
        device=f'{get_device()}, {torch.get_num_threads()} threads',
        torch=torch.__version__,
    )
    facts = [result.as_dict() for result in done]
    summary = dict(metric=args.metric, settings=settings, results=facts)
    texts = dict(
        json=json.dumps(summary, indent=2) + '\n',
        md=make_table(done, args.metric, settings),
    )
    for suffix, text in texts.items():
        with atomic_write(args.out / f'comparison.{suffix}') as draft:
            draft.write_text(text)
    draw_comparison(done, args.metric, args.out / 'comparison.png')


def plan(args: argparse.Namespace) -> tuple[dict, list[tuple]]:
    """Check everything, count every model and write every config."""
    if args.speed_batch < 1 or min(args.seeds) < 0:
        raise ValueError('--seeds must be 0 or more, --speed-batch 1 or more.')
    base = load_config(args.config, args.cfg_options)
    check_data(base, ('train', 'val'))
    if 'max_iters' in base.train_cfg:
        # By default mmengine notes all evaluations at epoch 0 then.
        base.default_hooks.logger.log_metric_by_epoch = False
    args.out, args.size = args.out.absolute(), first_size(base)
    results, trainings = {}, []
    for spec in map(parse_network, dict.fromkeys(args.backbones)):
        cfg = deepcopy(base)
        swap_backbone(cfg, spec)
        results[spec.label] = Compared.count(spec.label, cfg, args.size)
        for seed in dict.fromkeys(args.seeds):
            cfg = deepcopy(cfg)
            cfg.setdefault('randomness', {})
            cfg.randomness.seed = seed
            name = f'{slug(spec.label)}_seed{seed}'
            cfg.work_dir = str(args.out / name)
            path = args.out / 'configs' / f'{name}.py'
            write_training_config(cfg, path)
            trainings.append((seed, spec.label, cfg, path))
    # Seed by seed, so that what is there early is fair.
    return results, sorted(trainings, key=lambda x: args.seeds.index(x[0]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        results, trainings = plan(args)
        print(f'Everything goes to {args.out}', flush=True)
        paths = {}
        for number, (seed, label, cfg, path) in enumerate(trainings, 1):
            if args.report_only and not list(Path(cfg.work_dir).glob('*.pth')):
                continue
            print(f'\n=== {number}/{len(trainings)} {label}, seed {seed}')
            done = run_training(path, TRAIN)
            args.metric = args.metric or leading_metric(cfg)
            results[label].add(seed, cfg, done, args.metric)
            paths[label] = path
            report(list(results.values()), args)
        size = 'x'.join(map(str, args.size))
        specs = [parse_network(f'{path}@{size}') for path in paths.values()]
        settings = Settings(get_device(), (args.speed_batch,), budget=60)
        for key, form in dict(plain=Form(deploy=False), fused=Form()).items():
            timed = run_benchmark(specs, form, settings)
            for label, facts in zip(paths, timed, strict=True):
                speed = facts['results'][0]['images_per_second']
                results[label].speeds[key] = speed
        report(list(results.values()), args)
    print((args.out / 'comparison.md').read_text())
    print(f'Table, figure and numbers are {args.out}/comparison.*')


if __name__ == '__main__':
    main()

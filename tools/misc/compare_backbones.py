"""Train one detector, segmentor or classifier with several backbones.

All but the backbone, and the neck's or the head's fit to it, stays as the
config says. Finished trainings are taken as they are, interrupted ones go on.
"""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from mmmobilemamba.analysis.compare import Compared, make_table, swap_backbone
from mmmobilemamba.analysis.networks import parse_network
from mmmobilemamba.analysis.run_logs import draw_curves
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.input_size import first_size
from mmmobilemamba.apis.training import run_training, write_training_config
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.datasets.data_paths import check_data

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
BACKBONES = 't2 efficientvit_m4 mambaout:femto mobilenetv2_100'.split()


def plan(args: argparse.Namespace) -> tuple[list[Compared], list[tuple]]:
    """Check everything, count every model and write every config."""
    if min(args.seeds) < 0:
        raise ValueError(f'--seeds must be 0 or more, got {min(args.seeds)}.')
    base = load_config(args.config, args.cfg_options)
    check_data(base, ('train', 'val'))
    if 'max_iters' in base.train_cfg:
        # By default mmengine notes all evaluations at epoch 0 then.
        base.default_hooks.logger.log_metric_by_epoch = False
    args.out, size = args.out.absolute(), first_size(base)
    results, trainings = [], []
    for spec in map(parse_network, dict.fromkeys(args.backbones)):
        cfg = deepcopy(base)
        swap_backbone(cfg, spec)
        result = Compared(spec.label, cfg, size, args.metric)
        results.append(result)
        for seed in dict.fromkeys(args.seeds):
            cfg = deepcopy(cfg)
            cfg.setdefault('randomness', {})
            cfg.randomness.seed = seed
            name = f'{result.slug}_seed{seed}'
            cfg.work_dir = str(args.out / name)
            path = args.out / 'configs' / f'{name}.py'
            write_training_config(cfg, path)
            if any(args.out.glob(f'{name}/*.pth')) or not args.report_only:
                trainings.append((seed, result, cfg, path))
    if not trainings:
        raise FileNotFoundError(f'{args.out} has no finished training.')
    # Seed by seed, so that what is there early is fair.
    return results, sorted(trainings, key=lambda x: args.seeds.index(x[0]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config of a detector, segmentor or classifier')
    several = dict(nargs='+', metavar='NAME[=FILE]')
    text = 't2 to b4, names of timm, host:resnet18 or host:mobilenet_v2; with '
    text += 'a file, from these weights'
    add('--backbones', **several, default=BACKBONES, help=text)
    text = 'a training of every backbone for each'
    add('--seeds', nargs='+', type=int, default=[0, 1, 2], help=text)
    add('--metric', help='name in the logs; default: the leading one')
    out = Path('work_dirs/backbones')
    add('--out', type=Path, default=out, help='folder that takes everything')
    add('--report-only', action='store_true', help='of what is finished')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        results, trainings = plan(args)
        for number, (seed, result, cfg, path) in enumerate(trainings, 1):
            name = f'{result.label}, seed {seed}'
            print(f'\n=== {number} of {len(trainings)}: {name}', flush=True)
            result.add(seed, cfg, run_training(path, TRAIN))
            done = [result for result in results if result.values]
            table = make_table(done)
            with atomic_write(args.out / 'comparison.md') as draft:
                draft.write_text(table + '\n')
            runs = [run for result in done for run in result.runs]
            keys = ['loss', result.metric]
            draw_curves(runs, keys, args.out / 'comparison.png', smooth=8)
    print(f'\n{table}\n\nThe table and the curves are {args.out}/comparison.*')
    print(f'Speed: tools/analysis_tools/benchmark.py {args.out}/configs/*.py')


if __name__ == '__main__':
    main()

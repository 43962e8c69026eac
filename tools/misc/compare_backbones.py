"""Train one detector, segmentor or classifier with several backbones.

All but the backbone, and the neck's or the head's fit to it, stays as the
config says. Finished trainings are taken as they are, interrupted ones go on.
"""

import argparse
import re
from collections.abc import Sequence
from copy import deepcopy
from itertools import product
from pathlib import Path

from mmmobilemamba.analysis.compare import Compared, make_table, swap_backbone
from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.analysis.networks import parse_network
from mmmobilemamba.analysis.run_logs import (
    draw_curves,
    leading_metrics,
    read_run,
)
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.apis.input_size import first_size
from mmmobilemamba.apis.training import (
    run_training,
    training_length,
    write_training_config,
)
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.datasets.data_paths import check_data

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
BACKBONES = 't2 efficientvit_m4 mambaout:femto mobilenetv2_100'.split()


def plan(args: argparse.Namespace) -> list[tuple[Compared, Path, str]]:
    """Check everything, count every model and write every config."""
    base = load_config(args.config, args.cfg_options)
    check_data(base, ('train', 'val'))
    if 'max_iters' in base.train_cfg:
        # By default mmengine notes all evaluations at epoch 0 then.
        logger = dict(type='LoggerHook', log_metric_by_epoch=False)
        base.merge_from_dict({'default_hooks.logger': logger})
    args.out, size = args.out.absolute(), first_size(base)
    results, trainings = [], []
    for text in dict.fromkeys(args.backbones):
        spec, cfg = parse_network(text, takes=()), deepcopy(base)
        swap_backbone(cfg, spec)
        cost = count_complexity(build_model(cfg), size)
        more = f', {spec.weights}' if spec.checkpoint else ''
        if spec.label + more in [result.label for result in results]:
            # They would share a work folder.
            raise ValueError(f'{text}: {spec.label + more} is there already.')
        results.append(Compared(spec.label + more, cfg, cost))
    # Seed by seed, so that what is there early is fair.
    for seed, result in product(dict.fromkeys(args.seeds), results):
        cfg = deepcopy(result.cfg)
        cfg.merge_from_dict({'randomness.seed': seed})
        slug = re.sub(r'[^\w.-]+', '-', result.label).strip('-')
        name = f'{slug}_seed{seed}'
        cfg.work_dir = str(args.out / name)
        path = args.out / 'configs' / f'{name}.py'
        write_training_config(cfg, path)
        last = '{}_{}.pth'.format(*training_length(cfg))
        if not args.report_only or Path(cfg.work_dir, last).is_file():
            trainings.append((result, path, f'{result.label}, seed {seed}'))
    if not trainings:
        raise FileNotFoundError(f'{args.out} has no finished training.')
    return trainings


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
    with user_errors(parser):
        trainings, done = plan(args), {}
        for number, (result, path, name) in enumerate(trainings, 1):
            print(f'\n=== {number} of {len(trainings)}: {name}', flush=True)
            result.seconds.append(run_training(path, TRAIN).seconds)
            result.runs.append(read_run(args.out / path.stem, name))
            done[result.label] = result
            runs = [run for result in done.values() for run in result.runs]
            metric = args.metric or [*leading_metrics(runs), ''][0]
            table = make_table(done.values(), metric)
            with atomic_write(args.out / 'comparison.md') as draft:
                draft.write_text(table + '\n')
            keys = ['loss', metric]
            draw_curves(runs, keys, args.out / 'comparison.png', smooth=8)
    print(f'\n{table}\n\nThe table and the curves are {args.out}/comparison.*')
    print(f'Speed: tools/analysis_tools/benchmark.py {args.out}/configs/*.py')


if __name__ == '__main__':
    main()

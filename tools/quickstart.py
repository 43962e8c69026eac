"""Train, evaluate and draw a detector and a segmentor on embedded data."""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmmobilemamba.analysis.run_logs import draw_curves, read_run
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.training import run_training, write_training_config
from mmmobilemamba.checkpoints.checkpoint import load_checkpoint
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.datasets import make_shapes

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = dict(
    detection='mask-rcnn_mobilemamba-nano_shapes-160px.py',
    segmentation='fpn_mobilemamba-nano_shapes-160px.py',
)
# Name in the summary -> name that the host library's metric reports.
METRICS = dict(
    detection={
        'box AP50': 'coco/bbox_mAP_50',
        'box AP': 'coco/bbox_mAP',
        'mask AP50': 'coco/segm_mAP_50',
        'mask AP': 'coco/segm_mAP',
    },
    segmentation={'mIoU': 'mIoU', 'mAcc': 'mAcc', 'aAcc': 'aAcc'},
)
FULL = dict(num_train=800, num_val=100)
SMOKE = dict(num_train=16, num_val=10)
ROWS, COLUMNS = 4, 3  # of scenes that are drawn
SCORE_DRAWN = 0.5


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    text = 'folder that takes everything; default: work_dirs/quickstart, with '
    text += '--smoke work_dirs/quickstart_smoke'
    add('--out', type=Path, help=text)
    text = 'seed of the scenes and of the training; default: %(default)s'
    add('--seed', type=int, default=0, help=text)
    text = 'few scenes and steps, to see that all parts work; the results '
    text += 'mean nothing'
    add('--smoke', action='store_true', help=text)
    args = parser.parse_args(argv)
    name = 'quickstart_smoke' if args.smoke else 'quickstart'
    args.out = (args.out or Path('work_dirs', name)).absolute()
    return args


def announce(text: str) -> None:
    print(f'\n=== {text}', flush=True)


def write_config(task: str, args: argparse.Namespace, data: Path) -> Path:
    """Write the config of a task with its data, seed and folder filled in."""
    cfg = load_config(ROOT / 'configs' / 'quickstart' / CONFIGS[task])
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{data}/'
    if task == 'detection':
        annotations = f'{data}/annotations/instances_val.json'
        cfg.val_evaluator.ann_file = annotations
        cfg.test_evaluator.ann_file = annotations
    cfg.randomness.seed = args.seed
    cfg.work_dir = str(args.out / task)
    if args.smoke:
        cfg.train_cfg.update(max_epochs=2, val_interval=1)
        cfg.default_hooks.logger.interval = 1
    path = args.out / 'configs' / CONFIGS[task]
    write_training_config(cfg, path)
    return path


def evaluate(
    task: str, config: Path, checkpoint: Path | None
) -> tuple[Runner, dict[str, float]]:
    """Return a Runner with fresh weights or trained ones, and its metrics,
    between 0 and 1."""
    cfg = load_config(config)
    cfg.work_dir = str(Path(cfg.work_dir) / 'evaluation')
    # The training's log has told the rest; the summary names the metrics.
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    if checkpoint is None:
        runner.model.init_weights()
    else:
        load_checkpoint(runner.model, checkpoint)
    found = runner.test()
    scale = 100 if task == 'segmentation' else 1
    metrics = METRICS[task].items()
    return runner, {k: round(float(found[v]) / scale, 4) for k, v in metrics}


def predict(runner: Runner) -> Iterator[tuple[np.ndarray, BaseDataElement]]:
    """Yield RGB image and sample, with truth and prediction, of each scene."""
    runner.model.eval()
    for batch in runner.test_dataloader:
        with torch.no_grad():
            samples = runner.model.test_step(batch)
        for image, sample in zip(batch['inputs'], samples, strict=True):
            # Loaded as BGR, (3, height, width).
            yield np.ascontiguousarray(image.flip(0).permute(1, 2, 0)), sample


def draw_scenes(runner: Runner, path: Path) -> None:
    """Write a grid of scenes: ground truth left, prediction right of it."""
    size = (4.4 * COLUMNS, 2.3 * ROWS)
    figure, axes = plt.subplots(ROWS, 2 * COLUMNS, figsize=size)
    detector = runner.cfg.default_scope == 'mmdet'
    options = dict(pred_score_thr=SCORE_DRAWN) if detector else {}
    for pair, scene in zip(axes.reshape(-1, 2), predict(runner)):
        for ax, title in zip(pair, ('truth', 'prediction')):
            options['draw_gt'] = title == 'truth'
            options['draw_pred'] = title == 'prediction'
            runner.visualizer.add_datasample('', *scene, **options)
            ax.imshow(runner.visualizer.get_image())
            ax.set_title(title, fontsize=8, pad=3)
    for ax in axes.flat:
        ax.axis('off')
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def report(summary: dict) -> None:
    """Print the summary in the form that a reader wants at the end."""
    announce('Summary')
    for task in CONFIGS:
        result = summary[task]
        print(f'{task} (trained in {result["train_seconds"] / 60:.1f} min)')
        for name, value in result['trained'].items():
            untrained = result['untrained'][name]
            print(f'  {name:<10} {value:6.3f}   untrained {untrained:6.3f}')
    for what, paths in summary['files'].items():
        print(f'{what.capitalize()}:', *paths, sep='\n  ')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    matplotlib.use('Agg')
    # Remarks of the host libraries on their own inner workings.
    warnings.filterwarnings('ignore', category=UserWarning)
    allow_mmengine_checkpoints()
    pictures, data = args.out / 'pictures', args.out / 'shapes'
    pictures.mkdir(parents=True, exist_ok=True)
    device = 'a GPU' if torch.cuda.is_available() else 'the CPU'
    summary: dict = dict(seed=args.seed, smoke=args.smoke, device=device)
    curves, numbers = pictures / 'curves.png', args.out / 'summary.json'
    files = dict(pictures=[], checkpoints=[], curves=[str(curves)])
    try:
        announce(f'1/4 Data in {data}')
        sizes = SMOKE if args.smoke else FULL
        make_shapes(data, seed=args.seed, **sizes)
        for number, task in enumerate(CONFIGS, 2):
            announce(f'{number}/4 {task.capitalize()} on {device}')
            config = write_config(task, args, data)
            done = run_training(config, ROOT / 'tools' / 'train.py')
            announce(f'{number}/4 {task.capitalize()}: the untrained network')
            _, untrained = evaluate(task, config, None)
            announce(f'{number}/4 {task.capitalize()}: the trained network')
            runner, trained = evaluate(task, config, done.checkpoint)
            draw_scenes(runner, pictures / f'{task}.png')
            files['pictures'].append(str(pictures / f'{task}.png'))
            files['checkpoints'].append(str(done.checkpoint))
            summary[task] = dict(trained=trained, untrained=untrained)
            summary[task]['train_seconds'] = done.seconds
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error} --out names another folder.')
    announce('4/4 Curves')
    runs = [read_run(args.out / task) for task in CONFIGS]
    keys = ['loss', 'coco/bbox_mAP_50', 'coco/segm_mAP_50', 'mIoU']
    draw_curves(runs, keys, curves, smooth=8)
    summary['files'] = files | dict(summary=[str(numbers)])
    numbers.write_text(json.dumps(summary, indent=2))
    report(summary)


if __name__ == '__main__':
    main()

"""Train, evaluate and draw a detector and a segmentor on embedded data."""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from mmengine.runner import Runner

from mmmobilemamba.analysis.run_logs import read_run
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.options import build_runner
from mmmobilemamba.apis.training import run_training, write_training_config
from mmmobilemamba.checkpoints.checkpoint import load_checkpoint
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.datasets import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_SEG_PALETTE,
    make_shapes,
)

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
SCENES_DRAWN = 12
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
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, got {args.seed}')
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


def make_runner(config: Path, checkpoint: Path | None) -> Runner:
    """Build a Runner for evaluation, with fresh weights or trained ones."""
    cfg = load_config(config)
    cfg.work_dir = str(Path(cfg.work_dir) / 'evaluation')
    cfg.load_from = checkpoint and str(checkpoint)
    # the training's log has told the rest; the summary names the metrics
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)
    if checkpoint is None:
        runner.model.init_weights()
    else:
        load_checkpoint(runner.model, str(checkpoint))
    return runner


def evaluate(runner: Runner, task: str) -> dict[str, float]:
    """Return the metrics of a task, between 0 and 1."""
    found = runner.test()
    scale = 100 if task == 'segmentation' else 1
    return {
        name: round(float(found[key]) / scale, 4)
        for name, key in METRICS[task].items()
    }


def predict(runner: Runner, count: int) -> list[tuple]:
    """Return image (RGB), truth and prediction of the first scenes."""
    results = []
    runner.model.eval()
    for batch in runner.test_dataloader:
        with torch.no_grad():
            samples = runner.model.test_step(batch)
        for image, sample in zip(batch['inputs'], samples, strict=True):
            # loaded as BGR, (3, height, width)
            results.append((image.flip(0).permute(1, 2, 0).numpy(), sample))
        if len(results) >= count:
            break
    return results[:count]


def show_instances(ax: plt.Axes, image: np.ndarray, found) -> None:
    """Draw masks, boxes and names, with scores where there are some."""
    ax.imshow(image)
    masks = getattr(found.masks, 'masks', found.masks)
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    for i, label in enumerate(found.labels.tolist()):
        mask = np.asarray(masks[i], dtype=bool)
        colour = np.array(SHAPES_PALETTE[label]) / 255
        overlay = np.zeros((*mask.shape, 4))
        overlay[mask] = (*colour, 0.45)
        ax.imshow(overlay, interpolation='nearest')
        ax.contour(mask, levels=[0.5], colors='white', linewidths=0.8)
        left, top, right, bottom = boxes[i].tolist()
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
        style = dict(fill=False, edgecolor=colour, linewidth=1.2)
        ax.add_patch(plt.Rectangle(corner, *size, **style))
        text = SHAPES_CLASSES[label]
        if 'scores' in found:
            text += f' {found.scores[i]:.2f}'
        style = dict(color='white', fontsize=6, va='bottom', clip_on=True)
        style['bbox'] = dict(facecolor=colour, pad=0.6, linewidth=0)
        ax.text(left, top, text, **style)


def show_labels(ax: plt.Axes, image: np.ndarray, labels) -> None:
    colours = np.array(SHAPES_SEG_PALETTE)[labels.data.squeeze(0).numpy()]
    ax.imshow((0.25 * image + 0.75 * colours).astype(np.uint8))


def draw_pictures(results: list[tuple], path: Path) -> None:
    """Write a grid of scenes: ground truth left, prediction right of it."""
    columns = 3
    rows = math.ceil(len(results) / columns)
    figure, axes = plt.subplots(
        rows, 2 * columns, figsize=(4.4 * columns, 2.3 * rows), squeeze=False
    )
    for ax in axes.flat:
        ax.axis('off')
    for pair, (image, sample) in zip(
        axes.reshape(-1, 2), results, strict=False
    ):
        if 'pred_instances' in sample:
            found = sample.pred_instances
            found = found[found.scores >= SCORE_DRAWN]
            show, parts = show_instances, (sample.gt_instances, found)
        else:
            parts = (sample.gt_sem_seg, sample.pred_sem_seg)
            show = show_labels
        for ax, part, title in zip(
            pair, parts, ('truth', 'prediction'), strict=True
        ):
            show(ax, image, part.cpu())
            ax.set_title(title, fontsize=8, pad=3)
            ax.set_xlim(-0.5, image.shape[1] - 0.5)
            ax.set_ylim(image.shape[0] - 0.5, -0.5)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_curves(out: Path, path: Path) -> None:
    """Write the losses and the held-out metrics of both trainings."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6))
    for row, task in zip(axes, CONFIGS, strict=True):
        run = read_run(out / task)
        row[0].plot(*run.curve('loss'))
        row[0].set(title=f'{task}: loss', xlabel='iteration')
        scale = 100 if task == 'segmentation' else 1
        for name, key in METRICS[task].items():
            epochs, values = run.curve(key)
            values = [value / scale for value in values]
            row[1].plot(epochs, values, marker='o', label=name)
        title = f'{task}: held-out scenes'
        row[1].set(title=title, xlabel='epoch', ylim=(0, 1))
        row[1].legend(fontsize=8)
        for ax in row:
            ax.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
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
    print(f'Training took {summary["train_seconds"] / 60:.1f} min in all.')
    for what, paths in summary['files'].items():
        print(f'{what.capitalize()}:', *paths, sep='\n  ')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    matplotlib.use('Agg')
    # remarks of the host libraries on their own inner workings
    warnings.filterwarnings('ignore', category=UserWarning)
    allow_mmengine_checkpoints()
    pictures = args.out / 'pictures'
    data = args.out / 'shapes'

    announce(f'1/4 Data in {data}')
    sizes = SMOKE if args.smoke else FULL
    try:
        written = make_shapes(data, seed=args.seed, **sizes)
    except FileExistsError as error:
        sys.exit(f'error: {error}; --out names another place')
    print('Written.' if written else 'Already there, re-used.')
    pictures.mkdir(parents=True, exist_ok=True)

    device = 'a GPU' if torch.cuda.is_available() else 'the CPU'
    summary: dict = dict(seed=args.seed, smoke=args.smoke, device=device)
    files = dict(pictures=[], checkpoints=[])
    for number, task in enumerate(CONFIGS, 2):
        announce(f'{number}/4 {task.capitalize()} on {device}')
        try:
            config = write_config(task, args, data)
            done = run_training(config, ROOT / 'tools' / 'train.py')
        except (ValueError, ChildProcessError) as error:
            sys.exit(f'error: {error} --out names another folder.')
        announce(f'{number}/4 {task.capitalize()}: the untrained network')
        untrained = evaluate(make_runner(config, None), task)
        announce(f'{number}/4 {task.capitalize()}: the trained network')
        runner = make_runner(config, done.checkpoint)
        trained = evaluate(runner, task)
        picture = pictures / f'{task}.png'
        draw_pictures(predict(runner, SCENES_DRAWN), picture)
        summary[task] = dict(
            trained=trained, untrained=untrained, train_seconds=done.seconds
        )
        files['pictures'].append(str(picture))
        files['checkpoints'].append(str(done.checkpoint))

    announce('4/4 Curves')
    draw_curves(args.out, pictures / 'curves.png')
    files['curves'] = [str(pictures / 'curves.png')]
    files['summary'] = [str(args.out / 'summary.json')]
    seconds = sum(summary[task]['train_seconds'] for task in CONFIGS)
    summary.update(train_seconds=seconds, files=files)
    (args.out / 'summary.json').write_text(json.dumps(summary, indent=2))
    report(summary)


if __name__ == '__main__':
    main()

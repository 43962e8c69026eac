"""Divide an annotation file of COCO's form into train.json and val.json."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmmobilemamba.apis.command_line import user_errors
from mmmobilemamba.checkpoints.atomic import atomic_write
from mmmobilemamba.datasets.coco import read_coco

KEYS = ('images', 'annotations', 'categories')


def split_coco(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, dict[str, int]]:
    """Write ``train.json`` and ``val.json`` for the images of one file.

    Of random choices of images take that with the same share of every class.

    Args:
        source (str or PathLike): Annotation file.
        out_dir (str or PathLike): Folder that takes both, each written whole.
        val_share (float): Share of images to hold out. Defaults to 0.2.
        seed (int): Seed of the choice. Defaults to 0.

    Returns:
        dict[str, dict[str, int]]: For ``'train'`` and ``'val'`` the number of
        ``'images'`` and of each class's objects.

    Raises:
        OSError: The source cannot be read, or a file is there.
        ValueError: The source cannot be divided so.
    """
    paths = [Path(out_dir, name) for name in ('train.json', 'val.json')]
    for path in paths:
        if path.exists():
            raise FileExistsError(f'{path} exists; remove it.')
    content = read_coco(source)
    images, objects = content['images'], content['annotations']
    if not all(isinstance(x, dict) for key in KEYS for x in content[key]):
        raise ValueError(f'{source} lists what is no entry: {{...}}.')
    if not 0 < val_share < 1 or len(images) < 2:
        what = f'a share {val_share} of {len(images)} images'
        raise ValueError(f'{source} cannot be divided by {what}.')
    names = {x.get('id'): str(x.get('name')) for x in content['categories']}
    rows = {image.get('id'): row for row, image in enumerate(images)}
    columns = {number: column for column, number in enumerate(names)}
    counts = np.zeros((len(images), len(names)), np.int64)
    for entry in objects:
        row, column = entry.get('image_id'), entry.get('category_id')
        if row not in rows or column not in columns:
            raise ValueError(f'{source} lists no image or category of {entry}')
        counts[rows[row], columns[column]] += 1
    held_out = _choose(counts, val_share, seed)
    summary = {}
    for path, chosen in zip(paths, (~held_out, held_out)):
        part = [image for image, use in zip(images, chosen) if use]
        ids = {image.get('id') for image in part}
        inside = [x for x in objects if x['image_id'] in ids]
        text = json.dumps(dict(content, images=part, annotations=inside))
        with atomic_write(path) as draft:
            draft.write_text(text)
        totals = counts[chosen].sum(0).tolist()
        summary[path.stem] = dict(images=len(part))
        summary[path.stem].update(zip(names.values(), totals))
    return summary


def _choose(counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which images to hold out, (images, )."""
    total, objects = len(counts), counts.sum(0)
    number = min(max(round(share * total), 1), total - 1)
    random = np.random.default_rng(seed)
    draws = [random.permutation(total)[:number] for _ in range(500)]
    shares = np.stack([counts[draw].sum(0) for draw in draws])
    shares = shares / np.maximum(objects, 1)
    # A class that one side lacks is worse than any imbalance.
    lacking = ((shares == 0) | (shares == 1)) & (objects > 1)
    costs = ((shares - share) ** 2).sum(1) + lacking.sum(1)
    return np.isin(np.arange(total), draws[costs.argmin()])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('source', help='annotation file')
    add('out_dir', help='folder that takes both files; images stay in place')
    text = "share of the images, and of each class's objects, that is held out"
    add('--val-share', type=float, default=0.2, help=text)
    add('--seed', type=int, default=0, help='seed of the choice')
    args = parser.parse_args(argv)
    with user_errors(parser):
        summary = split_coco(**vars(args))
    for name, counts in summary.items():
        text = ', '.join(f'{count} {key}' for key, count in counts.items())
        print(f'{args.out_dir}/{name}.json: {text}')


if __name__ == '__main__':
    main()

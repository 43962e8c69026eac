"""Count multiply-accumulates and parameters of the model of a config."""

import argparse
from collections import Counter
from collections.abc import Sequence
from unittest.mock import patch

from mmengine.config import Config
from torch import nn

from mmmobilemamba.analysis.complexity import Complexity, count_complexity
from mmmobilemamba.analysis.input_shapes import (
    padded,
    usual_shape,
    validation_shapes,
)
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of any of the libraries')
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='PX',
        help='height and width, or one side of a square; by default the size '
        'of the test pipeline, or 800 1280 where a detector keeps the ratio '
        'of its pictures',
    )
    inputs.add_argument(
        '--val-images',
        type=int,
        metavar='N',
        help='average over the sizes of the first N validation pictures, as '
        "MMDetection's own tool does with 100; only their list is read",
    )
    parser.add_argument(
        '--table',
        type=int,
        nargs='?',
        const=2,
        default=0,
        metavar='DEPTH',
        help='show a table by module, so many levels deep; 2 without a number',
    )
    parser.add_argument(
        '--deploy', action='store_true', help='fuse the backbone first'
    )
    add_cfg_options(parser)
    return parser


def check_shape(values: Sequence[int]) -> tuple[int, int]:
    """Return height and width of what the user gave."""
    if len(values) not in (1, 2) or min(values) < 1:
        raise ValueError(
            '--shape takes height and width in pixels, or one side, got '
            f'{" ".join(map(str, values))}.'
        )
    return (values[0], values[-1])


def choose_shapes(args: argparse.Namespace, cfg: Config) -> Counter:
    """Return the sizes to count at, with how often each occurs."""
    if args.val_images is None:
        shape = check_shape(args.shape) if args.shape else usual_shape(cfg)
        settings = cfg.model.get('data_preprocessor') or {}
        return Counter([padded(shape, settings.get('pad_size_divisor', 1))])
    if args.val_images < 1:
        raise ValueError(f'--val-images must be 1 or more: {args.val_images}.')
    return validation_shapes(cfg, args.val_images)


def make_model(cfg: Config, deploy: bool) -> nn.Module:
    """Build the model of a config, fused if so wished."""
    model = build_model(cfg)
    if deploy:
        backbone = getattr(model, 'backbone', model)
        if not hasattr(backbone, 'switch_to_deploy'):
            raise ValueError(
                f'--deploy: {type(backbone).__name__} has no fused form.'
            )
        backbone.switch_to_deploy()
    return model


def count(
    cfg: Config, deploy: bool, shapes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], Complexity]:
    """Count by shapes alone, or with values where a model needs them."""
    try:
        model = make_model(cfg, deploy)
        return {shape: count_complexity(model, shape) for shape in shapes}
    except RuntimeError as error:
        reason = str(error).partition('\n')[0]
        print(f'Computing on the CPU, as shapes alone do not do: {reason}')
    # Another one, as the first may have kept tensors without values.
    model = make_model(cfg, deploy)
    return {
        shape: count_complexity(model, shape, device='cpu') for shape in shapes
    }


def unread_macs(cfg: Config, shapes: Counter) -> float:
    """Count the stages that a backbone holds and nothing reads."""
    backbone = getattr(build_model(cfg), 'backbone', None)
    last = getattr(backbone, 'num_stages', 0) - 1
    read = getattr(backbone, 'out_indices', ())
    if type(backbone).__name__ != 'MobileMamba' or read[-1] == last:
        return 0
    macs = 0
    for shape, n in shapes.items():
        macs -= n * count_complexity(backbone, shape).macs
        with patch.object(backbone, 'out_indices', (*read, last)):
            macs += n * count_complexity(backbone, shape).macs
    return macs / sum(shapes.values())


def report(
    counts: dict[tuple[int, int], Complexity], shapes: Counter, unread: float
) -> str:
    """Say what was counted, in a few lines."""
    total = sum(shapes.values())
    macs = sum(counts[shape].macs * n for shape, n in shapes.items()) / total
    one = counts[shapes.most_common(1)[0][0]]
    if len(shapes) == 1:
        given = ' x '.join(map(str, *shapes))
    else:
        pixels = sum(h * w * n for (h, w), n in shapes.items()) / total
        given = f'{total} pictures, {pixels:,.0f} px on average'
    lines = [
        f'input       {given}',
        f'MACs        {readable(macs)} ({macs:,.0f}); most papers say FLOPs',
    ]
    if unread:
        lines.append(
            f'            {readable(macs + unread)} with the stages that '
            'are built and never run'
        )
    lines.append(f'parameters  {readable(one.params)} ({one.params:,})')
    if one.unused_params:
        lines.append(
            f'            {readable(one.params - one.unused_params)} without '
            'what inference does not read'
        )
    return '\n'.join(lines)


def readable(number: float) -> str:
    """Return a number with a unit and three or four digits."""
    if number >= 999.5e6:
        return f'{number / 1e9:.2f} G'
    return f'{number / 1e6:.1f} M'


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        shapes = choose_shapes(args, cfg)
        counts = count(cfg, args.deploy, shapes)
        unread = unread_macs(cfg, shapes)
    if args.table:
        shape = shapes.most_common(1)[0][0]
        if len(shapes) > 1:
            print(f'table at {shape[0]} x {shape[1]}')
        print(counts[shape].table(args.table) + '\n')
    print(report(counts, shapes, unread))


if __name__ == '__main__':
    main()

"""Count multiply-accumulates and parameters of the model of a config."""

import argparse
from collections.abc import Sequence

import torch
from mmengine.analysis.print_helper import complexity_stats_table

from mmmobilemamba.analysis.complexity import count_complexity
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model, optimize_backbone
from mmmobilemamba.apis.input_size import padded, usual_size


def readable(number: int) -> str:
    """Return a number with a unit and three or four digits."""
    if number >= 999.5e6:
        return f'{number / 1e9:.2f} G ({number:,})'
    return f'{number / 1e6:.1f} M ({number:,})'


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    text = 'height and width, or one side; default: as the test pipeline'
    add('--shape', type=int, nargs='+', metavar='PX', help=text)
    text = 'show a table by module, so many levels deep; 2 without a number'
    add('--table', type=int, nargs='?', const=2, metavar='DEPTH', help=text)
    add('--deploy', action='store_true', help='fuse the backbone first')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if args.shape and len(args.shape) > 2:
        parser.error(f'--shape takes one or two sides, got {args.shape}')
    torch.manual_seed(0)  # of the proposals that are kept
    with user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        model = build_model(cfg)
        optimize_backbone(model, args.deploy)
        sides = args.shape or usual_size(cfg)
        shape = padded((sides[0], sides[-1]), cfg)
        cost = count_complexity(model, shape)
    if args.table:
        options = dict(max_depth=args.table, show_param_shapes=False)
        print(complexity_stats_table(cost.analyzer, **options))
    names = (name.rpartition('::')[2] for name in cost.uncounted)
    print(f'input        {shape[0]} x {shape[1]}')
    print(f'MACs         {readable(cost.macs)}; most papers say FLOPs')
    print(f'parameters   {readable(cost.params)}')
    print(f'not counted  {", ".join(sorted(names))}')


if __name__ == '__main__':
    main()

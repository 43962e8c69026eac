"""Quantise an exported network to int8, and say what that costs."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS

from mmmobilemamba.analysis.run_logs import LEADING_METRICS
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.options import set_loader_defaults
from mmmobilemamba.datasets.data_paths import check_data


def make_measure(
    cfg: Config, work_dir: str
) -> Callable[[Path], tuple[str, float]]:
    """Return what evaluates a file on the test data of its config."""
    from mmmobilemamba.deploy.onnx_model import use_onnx

    check_data(cfg, ('test',))
    set_loader_defaults(cfg)
    cfg.work_dir, cfg.log_level = work_dir, 'WARNING'

    def measure(path: Path) -> tuple[str, float]:
        run = cfg.copy()
        use_onnx(run, path)
        found = RUNNERS.build(run).test()
        for name, scale in LEADING_METRICS.items():
            if name in found:
                return name, found[name] * scale
        raise ValueError(
            f'The metrics of the config report {", ".join(found)}; one of '
            f'{", ".join(LEADING_METRICS)} is needed, or --no-metric.'
        )

    return measure


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of the exported model')
    add('src', metavar='model', help='file of export_onnx.py')
    add('out', help='file to write, ending in .onnx')
    text = 'folder of images to calibrate on'
    add('folder', metavar='images', help=text)
    add('--count', type=int, default=64, help='images; default: 64')
    methods = ['minmax', 'percentile', 'entropy']
    text = 'how ranges are chosen; default: minmax'
    add('--method', default='minmax', choices=methods, help=text)
    text = 'points of AP, mIoU or accuracy that may be lost; default: 1'
    add('--max-loss', type=float, default=1.0, metavar='POINTS', help=text)
    text = "do without the config's test data"
    add('--no-metric', action='store_true', help=text)
    add('--threads', type=int, help='threads of the timing')
    add_cfg_options(parser)
    args = vars(parser.parse_args(argv))
    # Of both evaluations, as they share a visualizer.
    with tempfile.TemporaryDirectory() as folder, user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.int8 import quantize

        cfg = load_config(args.pop('config'), args.pop('cfg_options'))
        without = args.pop('no_metric')
        measure = None if without else make_measure(cfg, folder)
        print(quantize(**args, measure=measure))
    print(f'written: {args["out"]}')


if __name__ == '__main__':
    main()

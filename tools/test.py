"""Evaluate a checkpoint of a detector, a segmentor or a classifier."""

import argparse
import os
from collections.abc import Sequence

from mmengine.registry import RUNNERS

from mmmobilemamba.apis import command_line, options
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import optimize_backbone
from mmmobilemamba.apis.large_images import bound_memory
from mmmobilemamba.checkpoints.checkpoint import (
    check_checkpoint_file,
    load_checkpoint,
)
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.checkpoints.start import model_of
from mmmobilemamba.datasets.checked_pipeline import set_data_checks
from mmmobilemamba.datasets.data_paths import check_data
from mmmobilemamba.deploy import is_onnx
from mmmobilemamba.deploy.arguments import add_runtime_arguments, runtime_of
from mmmobilemamba.engine.distributed import (
    leave_distributed,
    setup_distributed,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of any of the libraries')
    add('checkpoint', help='checkpoint file of its model, or its .onnx file')
    text = 'where the predictions go: a .pkl file for detectors and '
    text += 'classifiers, a folder of label images for segmentors'
    add('--out', help=text)
    add('--show', action='store_true', help='show each image in a window')
    add('--show-dir', help='folder that takes drawn images')
    text = 'seconds that a window stays; default: %(default)s'
    add('--wait-time', type=float, default=2, help=text)
    add('--tta', action='store_true', help='test-time augmentation')
    text = 'accept a checkpoint that fits the model only in part'
    add('--allow-partial', action='store_true', help=text)
    text = 'fuse the backbone before predicting'
    add('--deploy', action='store_true', help=text)
    text = 'compile the backbone; the first image of a size takes a minute'
    add('--compile', action='store_true', help=text)
    add_runtime_arguments(parser)
    command_line.add_run_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    onnx = is_onnx(args.checkpoint)
    with command_line.user_errors(parser):
        cfg = load_config(args.config, args.cfg_options)
        check_checkpoint_file(args.checkpoint)
        # It is loaded below: the Runner would take any file.
        cfg.load_from, cfg.resume = None, False
        cfg.init_weights_for_test_or_val = False
        runtime = runtime_of(args)
        if onnx:
            if args.tta:
                raise ValueError('--tta needs a checkpoint, not a .onnx file.')
            # Needs what requirements/deploy.txt names.
            from mmmobilemamba.deploy.onnx_model import use_onnx

            use_onnx(cfg, args.checkpoint, **runtime)
        check_data(cfg, ('test',))
        options.set_test_options(cfg, args)
        set_data_checks(cfg, ('test',))
        setup_distributed(cfg)
        runner = RUNNERS.build(cfg)
        # Built here, where what a metric refuses is one line.
        if runner.test_loop is None:
            raise ValueError('The config has no test_dataloader.')
        if args.show_dir:
            os.makedirs(args.show_dir, exist_ok=True)
        if args.show_dir or (args.out and cfg.default_scope == 'mmseg'):
            options.check_image_names(runner)
        model = model_of(runner)
        if not onnx:
            load_checkpoint(model, args.checkpoint, args.allow_partial)
        model.eval()
        # An exported file is fused.
        optimize_backbone(model, args.deploy and not onnx, args.compile)
        bound_memory(model)
    with command_line.user_errors(parser, running=True):
        runner.test()
    rank = runner.rank
    del runner, model
    leave_distributed()
    for what, place in (('Images', args.show_dir), ('Results', args.out)):
        if place and rank == 0:
            print(f'{what} are in {place}')


if __name__ == '__main__':
    main()

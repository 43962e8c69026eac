"""Predict images and draw the result: boxes, masks, label maps, classes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from mmengine.device import get_device

from mmmobilemamba.apis import command_line, inference
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.deploy import is_onnx
from mmmobilemamba.deploy.arguments import add_runtime_arguments, runtime_of


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('image', help='image file, or a folder of images')
    add('config', help='config file of any of the libraries')
    add('checkpoint', help='checkpoint file of its model, or its .onnx file')
    text = 'folder that takes the drawn images; default: %(default)s'
    add('--out-dir', default='outputs', help=text)
    text = 'device to predict on; default here: %(default)s'
    add('--device', default=get_device(), help=text)
    text = 'lowest score of a detection to draw; default: %(default)s'
    names = ('--score-thr', '--pred-score-thr')
    add(*names, type=float, default=0.3, help=text)
    switch = argparse.BooleanOptionalAction
    text = 'fuse the backbone before predicting'
    add('--deploy', action=switch, default=True, help=text)
    text = 'compile the backbone; the first image of a size takes a minute'
    add('--compile', action='store_true', help=text)
    add_runtime_arguments(parser)
    command_line.add_cfg_options(parser)
    args = parser.parse_args(argv)
    # A name of a file may be in another encoding.
    sys.stdout.reconfigure(errors='backslashreplace')
    allow_mmengine_checkpoints()
    with command_line.user_errors(parser):
        images = inference.find_images(args.image)
        if len(images) == 1:
            inference.read_image(images[0])
        out_dir = Path(args.out_dir)
        if out_dir.resolve() == images[0].parent.resolve():
            raise ValueError(f'--out-dir {out_dir} would overwrite images.')
        device = command_line.check_device(args.device)
        check_checkpoint_file(args.checkpoint)
        runtime = runtime_of(args)
        cfg = load_config(args.config, args.cfg_options)
        out_dir.mkdir(parents=True, exist_ok=True)
        if is_onnx(args.checkpoint):
            # Needs what requirements/deploy.txt names.
            from mmmobilemamba.deploy.onnx_model import use_onnx

            use_onnx(cfg, args.checkpoint, **runtime)
            model = inference.load_model(cfg, None, 'cpu')
        else:
            model = inference.load_model(cfg, args.checkpoint, device)
            deploy = args.deploy and hasattr(
                model.backbone, 'switch_to_deploy'
            )
            inference.optimize_backbone(model, deploy, args.compile)

    skipped = 0
    for path in images:
        try:
            image = inference.read_image(path)
            sample = inference.predict(model, str(path))
        except (ValueError, cv2.error) as error:
            # Unreadable, or too small or narrow for the network.
            text = ' '.join(str(error).split())
            told = str(path) in text
            print('skipped:', text if told else f'{path}: {text}')
            skipped += 1
            continue
        target = out_dir / path.name
        print('replaced:' if target.exists() else 'drawn:', target)
        inference.draw(model, image, sample, str(target), args.score_thr)
    if skipped == len(images):
        parser.exit(2, f'{parser.prog}: error: all images are skipped.\n')


if __name__ == '__main__':
    main()

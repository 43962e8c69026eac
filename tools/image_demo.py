"""Predict images and draw the result: boxes, masks, label maps, classes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.device import get_device

from mmmobilemamba.apis.command_line import (
    add_cfg_options,
    add_compile_argument,
    check_device,
    user_errors,
)
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import (
    describe,
    draw,
    find_images,
    load_model,
    optimize_backbone,
    predict,
    read_image,
)
from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.deploy import is_onnx
from mmmobilemamba.deploy.arguments import (
    add_runtime_arguments,
    runtime_of,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='image file, or a folder of images')
    parser.add_argument('config', help='config file of any of the libraries')
    parser.add_argument(
        'checkpoint', help='checkpoint file of its model, or its .onnx file'
    )
    parser.add_argument(
        '--out-dir',
        default='outputs',
        help='folder that takes the drawn images; default: %(default)s',
    )
    parser.add_argument(
        '--device',
        default=get_device(),
        help='device to predict on; default here: %(default)s',
    )
    parser.add_argument(
        '--score-thr',
        '--pred-score-thr',
        type=float,
        default=0.3,
        help='lowest score of a detection to draw; default: %(default)s',
    )
    parser.add_argument(
        '--deploy',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='fuse the backbone before predicting',
    )
    add_compile_argument(parser)
    add_runtime_arguments(parser)
    add_cfg_options(parser)
    return parser


def check_out_dir(out_dir: str, images: list[Path]) -> Path:
    """Make the folder of the results, another one than the images' own."""
    folder = Path(out_dir)
    if folder.resolve() == images[0].parent.resolve():
        raise ValueError(f'--out-dir {out_dir} would overwrite the images.')
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        images = find_images(args.image)
        if len(images) == 1:
            read_image(images[0])
        device = check_device(args.device)
        check_checkpoint_file(args.checkpoint)
        runtime = runtime_of(args)
        cfg = load_config(args.config, args.cfg_options)
        out_dir = check_out_dir(args.out_dir, images)
        if is_onnx(args.checkpoint):
            # Needs what requirements/deploy.txt names.
            from mmmobilemamba.deploy.onnx_model import load_onnx_model

            model = load_onnx_model(cfg, args.checkpoint, **runtime)
        else:
            model = load_model(cfg, args.checkpoint, device)
            fusible = hasattr(model.backbone, 'switch_to_deploy')
            optimize_backbone(model, fusible and args.deploy, args.compile)

    for path in images:
        try:
            image = read_image(path)
        except ValueError as error:
            print(f'skipped: {error}')
            continue
        sample = predict(model, image)
        target = out_dir / path.name
        replaced = f'; {target} is replaced' if target.exists() else ''
        draw(model, image, sample, target, args.score_thr)
        print(f'{path}: {describe(model, sample, args.score_thr)}{replaced}')
    print(f'Drawn images are in {out_dir.resolve()}')


if __name__ == '__main__':
    main()

"""Draw the effective receptive fields of networks side by side."""

import argparse
from collections.abc import Sequence

from mmengine.device import get_device
from mmengine.utils import track_iter_progress
from torch import Tensor, nn

from mmmobilemamba.analysis.figures import check_figure_path
from mmmobilemamba.analysis.networks import (
    build_network,
    parse_network,
    random_images,
    read_rgb,
)
from mmmobilemamba.analysis.receptive_field import (
    draw_fields,
    field_table,
    receptive_fields,
    wake_branches,
)
from mmmobilemamba.apis.command_line import check_device, user_errors
from mmmobilemamba.apis.inference import find_images
from mmmobilemamba.apis.input_size import input_channels
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints


def load_images(module: nn.Module, args: argparse.Namespace) -> list[Tensor]:
    """Make noise, or read images, resized and cropped to a square."""
    size = (args.size, args.size)
    if args.images is None:
        return list(random_images(module, args.num_images, size)[:, None])
    if input_channels(module) != 3:
        raise ValueError(
            f'--images are RGB, and a {type(module).__name__} takes '
            f'{input_channels(module)} channels; leave them out for noise.'
        )
    paths = find_images(args.images)[: args.num_images]
    return [read_rgb(path, size) for path in paths]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    text = (
        'mobilemamba:ARCH, timm:NAME, or a config, whose backbone is taken; '
    )
    text += 'with =CHECKPOINT behind it for trained weights'
    add('networks', nargs='+', metavar='NETWORK', help=text)
    text = 'stages to draw, negative ones from the end'
    add('--stages', nargs='+', type=int, default=[-1], help=text)
    add('--images', help='image or folder of images; without it, noise')
    add('--num-images', type=int, default=16, help='most images to average')
    add('--size', type=int, default=256, help='side of the images in pixels')
    add('--names', nargs='+', help='names of the networks in the figure')
    add('--out', default='outputs/erf.png', help='file of the figure')
    add('--device', default=get_device(), help='device to compute on')
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        check_figure_path(args.out)
        check_device(args.device)
        if args.num_images < 1 or args.size < 1:
            raise ValueError('--num-images and --size must be 1 or more.')
        specs = [parse_network(text) for text in args.networks]
        names = args.names or [spec.label for spec in specs]
        if len(names) != len(specs):
            raise ValueError(
                f'--names takes one for each of the {len(specs)} networks, '
                f'got {len(names)}.'
            )
        networks = {}
        for spec, name in zip(specs, names, strict=True):
            module, _ = build_network(spec, features=True)
            images = load_images(module, args)
            if not spec.checkpoint:
                wake_branches(module)
            module.to(args.device).requires_grad_(False)
            print(f'{name} ({spec.weights})')
            moved = (image.to(args.device) for image in images)
            progress = track_iter_progress((moved, len(images)))
            networks[f'{name}, {spec.weights}'] = receptive_fields(
                module, progress, args.stages
            )
            print()
        kind = 'images' if args.images else 'noise images'
        draw_fields(
            networks,
            args.out,
            f'Effective receptive field, {len(images)} {kind} of '
            f'{args.size} x {args.size} px',
        )
    print(field_table(networks))
    print(f'\nThe figure is {args.out}')


if __name__ == '__main__':
    main()

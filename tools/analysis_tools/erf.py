"""Draw the effective receptive fields of networks side by side."""

import argparse
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from mmengine.device import get_device
from mmengine.utils import track_iter_progress
from torch import Tensor

from mmmobilemamba.analysis.feature_networks import (
    FeatureNetwork,
    build_feature_network,
)
from mmmobilemamba.analysis.field_figure import Row, draw_fields, field_table
from mmmobilemamba.analysis.figures import check_figure_path
from mmmobilemamba.analysis.receptive_field import receptive_fields
from mmmobilemamba.apis.command_line import check_device, user_errors
from mmmobilemamba.apis.inference import find_images, read_image
from mmmobilemamba.engine.safe_checkpoint import allow_mmengine_checkpoints

# ImageNet's, of RGB pixels, as most networks expect them
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'networks',
        nargs='+',
        metavar='NETWORK',
        help='mobilemamba:ARCH, timm:NAME, or a config file, whose backbone '
        'is taken; with =CHECKPOINT behind it for trained weights',
    )
    parser.add_argument(
        '--stages',
        nargs='+',
        type=int,
        default=[-1],
        metavar='N',
        help='stages to draw, negative ones from the end; default: the last',
    )
    parser.add_argument(
        '--images', help='image or folder of images; without it, noise'
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=16,
        metavar='N',
        help='most pictures to average over; default: %(default)s',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=256,
        metavar='PX',
        help='side of the pictures in pixels; default: %(default)s',
    )
    parser.add_argument(
        '--names', nargs='+', help='names of the networks in the figure'
    )
    parser.add_argument(
        '--out',
        default='outputs/erf.png',
        help='file of the figure; default: %(default)s',
    )
    parser.add_argument(
        '--device',
        default=get_device(),
        help='device to compute on; default here: %(default)s',
    )
    return parser


def load_pictures(args: argparse.Namespace) -> list[Tensor]:
    """Make noise, or read pictures, resized and cropped to a square."""
    if args.images is None:
        generator = torch.Generator().manual_seed(0)
        shape = (args.num_images, 1, 3, args.size, args.size)
        return list(torch.randn(shape, generator=generator))
    paths = find_images(args.images)[: args.num_images]
    return [_square(read_image(path), args.size) for path in paths]


def _square(image: np.ndarray, size: int) -> Tensor:
    scale = size / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale)
    top, left = ((side - size) // 2 for side in image.shape[:2])
    image = image[top : top + size, left : left + size, ::-1]
    image = (image.astype(np.float32) - MEAN) / STD
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what cannot be drawn before any network is built."""
    check_figure_path(args.out)
    check_device(args.device)
    for name in ('num_images', 'size'):
        if getattr(args, name) < 1:
            raise ValueError(
                f'--{name.replace("_", "-")} must be 1 or more, got '
                f'{getattr(args, name)}.'
            )
    if args.names and len(args.names) != len(args.networks):
        raise ValueError(
            f'--names takes one for each of the {len(args.networks)} '
            f'networks, got {len(args.names)}.'
        )


def compute(
    networks: list[FeatureNetwork], pictures: list[Tensor], args
) -> Iterator[Row]:
    """Compute the fields of one network after the other."""
    for network in networks:
        print(f'{network.name} ({network.weights})')
        moved = (x.to(args.device) for x in pictures)
        fields = receptive_fields(
            network.module,
            track_iter_progress((moved, len(pictures))),
            args.stages,
        )
        print()
        yield Row(network.name, network.weights, fields)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    allow_mmengine_checkpoints()
    with user_errors(parser):
        check_arguments(args)
        pictures = load_pictures(args)
        networks = [
            build_feature_network(text, args.device) for text in args.networks
        ]
        for network, name in zip(networks, args.names or []):
            network.name = name
        rows = list(compute(networks, pictures, args))
        kind = 'noise pictures' if args.images is None else 'pictures'
        title = (
            'Effective receptive field, '
            f'{len(pictures)} {kind} of {args.size} x {args.size} px'
        )
        draw_fields(rows, args.out, title)
    print(field_table(rows))
    print(f'\nThe figure is {args.out}')


if __name__ == '__main__':
    main()

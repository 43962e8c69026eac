"""Draw the effective receptive fields of networks side by side."""

import argparse
from collections.abc import Sequence

from mmengine.device import get_device
from mmengine.utils import track_iter_progress

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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    text = 'mobilemamba:ARCH, timm:NAME, or a config, whose backbone is taken;'
    text += ' with =CHECKPOINT behind it for trained weights'
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
    with user_errors(parser):
        device, sizes = check_device(args.device), set()
        specs = [parse_network(text, ['size']) for text in args.networks]
        names = args.names or [spec.label for spec in specs]
        if len(names) != len(specs):
            raise ValueError(f'--names takes {len(specs)}, got {len(names)}.')
        fields = {}
        for spec, name in zip(specs, names, strict=True):
            name = f'{name}, {spec.weights}'
            if name in fields:
                raise ValueError(f'Two networks are {name}; give --names.')
            module, _ = build_network(spec, features=True)
            size = spec.size or (args.size, args.size)
            sizes.add(f'{size[0]} x {size[1]}')
            channels = input_channels(module)
            images = random_images(channels, args.num_images, size)[:, None]
            if args.images and channels != 3:
                raise ValueError(
                    f'--images are RGB, and a {type(module).__name__} takes '
                    f'{channels} channels; leave them out for noise.'
                )
            if args.images:
                paths = find_images(args.images)[: args.num_images]
                images = [read_rgb(path, size) for path in paths]
            if not spec.checkpoint:
                wake_branches(module)
            module.to(device).requires_grad_(False)
            print(name)
            images = [image.to(device) for image in images]
            fields[name] = receptive_fields(
                module, track_iter_progress(images), args.stages
            )
            print()
        kind = 'images' if args.images else 'noise images'
        title = f'Effective receptive field, {len(images)} {kind} of '
        title += f'{" and ".join(sorted(sizes))} px'
        draw_fields(fields, args.out, title)
    print(f'{field_table(fields)}\n\nThe figure is {args.out}')


if __name__ == '__main__':
    main()

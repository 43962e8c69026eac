"""Draw feature maps and class activation maps of a model on an image."""

import argparse
from collections.abc import Sequence

from mmengine.device import get_device

from mmmobilemamba.analysis.cam import METHODS, compute_cam, draw_cam
from mmmobilemamba.analysis.networks import build_network, parse_network
from mmmobilemamba.apis.command_line import check_device, user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('image', help='image file')
    text = 'config of any of the libraries, or mobilemamba:ARCH, timm:NAME'
    add('network', help=text)
    add('checkpoint', nargs='?', help='without it, random weights')
    add('--target', metavar='CLASS', help='name or number; default: the best')
    text = 'modules whose maps to draw; default: the stages'
    add('--layers', nargs='+', metavar='NAME', help=text)
    text = 'default: gradcam for classifiers, layercam for the rest'
    add('--method', choices=METHODS, help=text)
    add('--out', default='outputs/cam.jpg', help='file of the figure')
    add('--device', default=get_device(), help='device to compute on')
    args = parser.parse_args(argv)
    with user_errors(parser):
        device = check_device(args.device)
        weights = f'={args.checkpoint}' if args.checkpoint else ''
        spec = parse_network(args.network + weights, ['size'])
        if spec.size and spec.kind == 'config':
            raise ValueError(f'{spec.text}: its test pipeline says the size.')
        model, size = build_network(spec)
        model.to(device)
        image, target, layers = compute_cam(
            model, args.image, size, args.layers, args.target, args.method
        )
        title = f'{spec.label}, {spec.weights}: {target}'
        draw_cam(image, layers, args.out, title)
    print(f'{title}\nThe figure is {args.out}')


if __name__ == '__main__':
    main()

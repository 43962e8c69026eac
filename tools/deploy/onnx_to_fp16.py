"""Convert an exported network to fp16, for runtimes on GPUs."""

import argparse
from collections.abc import Sequence

from mmmobilemamba.apis.command_line import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='file of export_onnx.py')
    parser.add_argument('out', help='file to write, ending in .onnx')
    args = parser.parse_args(argv)
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy.float16 import to_float16

        print(to_float16(args.model, args.out))
    print(f'written: {args.out}')


if __name__ == '__main__':
    main()

"""Make a web page of an exported network, which runs it where it is opened."""

import argparse
from collections.abc import Sequence
from contextlib import suppress

from mmmobilemamba.apis.command_line import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('network', help='file of export_onnx.py, written with --preprocess')
    add('folder', help='folder to write the page to')
    text = 'folder of the npm package onnxruntime-web, or "npm" to fetch it'
    add('--runtime', required=True, help=text)
    text = 'serve the folder until Ctrl-C; default port: %(const)s'
    add('--serve', type=int, nargs='?', const=8000, metavar='PORT', help=text)
    text = 'address to serve at; 0.0.0.0 is for the network, where without '
    text += 'https there are images and photos, but no live camera or threads'
    add('--host', default='localhost', help=text)
    args = parser.parse_args(argv)
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.deploy import web_page

        web_page.make_web_page(args.network, args.folder, args.runtime)
        print(f'written: {args.folder}')
        if args.serve is None:
            return
        server = web_page.make_server(args.folder, args.host, args.serve)
    print(f'http://{args.host}:{server.server_port}, until Ctrl-C', flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == '__main__':
    main()

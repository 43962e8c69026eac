"""Time networks side by side: ours, timm's, and those of any config.

A network is named KIND:NETWORK@SIZE, such as mobilemamba:b1@256,
timm:efficientvit_m5@224 or configs/det/CONFIG.py@800x1344 (height x width);
without a size it takes its own. Options behind it, such as
mobilemamba:b1,deploy=no,backend=parallel,compile=yes,dtype=bfloat16, differ
from those of the run. A path that ends in .onnx runs in onnxruntime.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.device import get_device

from mmmobilemamba.analysis.benchmark import (
    DTYPES,
    RUNTIMES,
    Form,
    Settings,
    profile_network,
    run_benchmark,
)
from mmmobilemamba.analysis.benchmark_report import (
    PAPER_MODELS,
    PAPER_PAIRS,
    environment,
    markdown,
    write_report,
)
from mmmobilemamba.analysis.networks import parse_network
from mmmobilemamba.apis.command_line import check_device, user_errors


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, flag = parser.add_argument, dict(action='store_true')
    add('models', nargs='*', metavar='MODEL', help='networks to time')
    text = "add the networks of the paper's efficiency table and its peers"
    add('--table', choices=['paper'], help=text)
    text = 'one of the networks, with which the others are compared'
    add('--baseline', metavar='MODEL', help=text)
    text = 'time as trained, not with all fused that can be after training'
    add('--plain', **flag, help=text)
    add('--train', **flag, help='time forward and backward')
    add('--dtype', choices=DTYPES, default='float32', help='of all values')
    add('--channels-last', **flag, help='lay maps out so')
    add('--compile', **flag, help='torch.compile, weights as constants')
    add('--cuda-graph', **flag, help='replay all kernels of a GPU as a graph')
    add('--runtime', choices=RUNTIMES, default='onnxruntime', help='of files')
    add('--device', default=get_device(), help='where to run')
    add('--threads', type=int, help='threads on a CPU')
    sizes = dict(nargs='+', default=[1, 16], metavar='N')
    add('--batch-sizes', type=int, **sizes, help='each is timed by itself')
    add('--rounds', type=int, default=20, help='interleaved rounds')
    text = 'begin no new round after this long, per batch size'
    add('--seconds', type=float, help=text)
    add('--warmup', type=int, default=3, help='untimed calls before')
    text = 'instead of comparing, show which operators take the time'
    add('--breakdown', **flag, help=text)
    text = 'folder that takes benchmark.json, .md and .png'
    add('--out-dir', type=Path, help=text)
    add('--overwrite', **flag, help='replace those of an earlier run')
    return parser


def check_args(args: argparse.Namespace, texts: Sequence[str]) -> None:
    """Raise ValueError where arguments do not go together."""
    check_device(args.device)
    if min(args.batch_sizes) < 1 or (args.threads or 1) < 1:
        raise ValueError('--batch-sizes and --threads must be 1 or more.')
    if args.baseline and args.baseline not in texts:
        raise ValueError(
            f'--baseline {args.baseline} is not among the networks to time.'
        )
    if args.cuda_graph and not args.device.startswith('cuda'):
        raise ValueError('--cuda-graph needs --device cuda.')
    if args.out_dir and args.out_dir.joinpath('benchmark.json').exists():
        if not args.overwrite:
            raise ValueError(f'{args.out_dir} is taken; pass --overwrite.')


def say(text: str) -> None:
    """Show progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    # oneDNN keeps the kernels of 1024 shapes: networks in turn would drive
    # each other's out, which they never do alone.
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '65536')
    torch.backends.cudnn.benchmark = True
    paper = args.table == 'paper'
    texts = [*args.models, *(PAPER_MODELS if paper else ())]
    form = Form(
        deploy=not (args.plain or args.train),
        compile=args.compile,
        channels_last=args.channels_last,
        dtype=args.dtype,
        cuda_graph=args.cuda_graph,
        runtime=args.runtime,
    )
    with user_errors(parser):
        check_args(args, texts)
        torch.set_num_threads(args.threads or torch.get_num_threads())
        specs = [parse_network(text) for text in dict.fromkeys(texts)]
        settings = Settings(
            device=args.device,
            batch_sizes=tuple(dict.fromkeys(args.batch_sizes)),
            train=args.train,
            rounds=args.rounds,
            budget=args.seconds,
            warmup=args.warmup,
        )
        if args.breakdown:
            for spec in specs:
                print(profile_network(spec, form, settings))
            return
        pairs = [(x, args.baseline) for x in texts if x != args.baseline]
        pairs = pairs if args.baseline else []
        models = run_benchmark(specs, form, settings, say)
        report = dict(
            command=shlex.join(
                ['python', 'tools/analysis_tools/benchmark.py', *words]
            ),
            environment=environment(args.device),
            train=args.train,
            form=asdict(form),
            models=models,
            pairs=[*pairs, *(PAPER_PAIRS if paper else ())],
        )
        print(markdown(report), end='')
        if args.out_dir:
            write_report(report, args.out_dir)
            say(f'Results are in {args.out_dir}')


if __name__ == '__main__':
    main()

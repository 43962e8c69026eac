"""Time networks side by side: ours, timm's, and those of any config.

A network is named KIND:NETWORK@SIZE, such as mobilemamba:b1@256,
timm:efficientvit_m5@224 or configs/det/CONFIG.py@800x1344 (height x width);
without a size it takes its own. Options behind it differ from those of the
run: deploy, compile, channels_last and cuda_graph are yes or no, as in
mobilemamba:b1,deploy=no,compile=yes; backend is that of the scan, dtype as
below. A path that ends in .onnx runs in onnxruntime or runtime=openvino.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.utils import track_iter_progress

from mmmobilemamba.analysis.benchmark import (
    DTYPES,
    Form,
    profile_network,
    run_benchmark,
)
from mmmobilemamba.analysis.benchmark_report import (
    PAPER_MODELS,
    environment,
    markdown,
    write_report,
)
from mmmobilemamba.analysis.networks import parse_network
from mmmobilemamba.apis.command_line import check_device, user_errors


def main(argv: Sequence[str] | None = None) -> None:
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
    add('--device', default=get_device(), help='where to run')
    add('--threads', type=int, default=torch.get_num_threads(), help='of CPU')
    sizes = dict(nargs='+', default=[1, 16], metavar='N')
    add('--batch-sizes', type=int, **sizes, help='each is timed by itself')
    add('--rounds', type=int, default=20, help='interleaved rounds')
    text = 'begin no new round after this long, per batch size'
    add('--seconds', type=float, help=text)
    add('--warmup', type=int, default=3, help='untimed calls before')
    text = 'instead of comparing, show which operators take the time'
    add('--breakdown', **flag, help=text)
    text = 'new folder that takes benchmark.json, .md and .png'
    add('--out-dir', type=Path, help=text)
    args = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    # Progress of building and of timing, apart from the table.
    progress = partial(track_iter_progress, file=sys.stderr)
    # oneDNN keeps the kernels of 1024 shapes: networks in turn would drive
    # each other's out, which they never do alone.
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '65536')
    torch.backends.cudnn.benchmark = True
    form = Form(
        deploy=not (args.plain or args.train),
        channels_last=args.channels_last,
        dtype=args.dtype,
        train=args.train,
        device=args.device,
    )
    texts = [*args.models, *(PAPER_MODELS if args.table else ())]
    with user_errors(parser):
        check_device(args.device)
        counts = [args.threads, args.rounds, args.warmup, *args.batch_sizes]
        if not texts or min(counts) < 1:
            raise ValueError(
                f'Name networks to time; counts are 1 or more, got {counts}.'
            )
        if args.baseline and args.baseline not in texts:
            raise ValueError(
                f'--baseline {args.baseline} is not among the networks.'
            )
        if args.out_dir and args.out_dir.joinpath('benchmark.json').exists():
            raise FileExistsError(f'{args.out_dir} holds a benchmark already.')
        torch.set_num_threads(args.threads)
        specs = [parse_network(text) for text in dict.fromkeys(texts)]
        batch_sizes = list(dict.fromkeys(args.batch_sizes))
        if args.breakdown:
            for spec in specs:
                for batch in batch_sizes:
                    print(f'{spec.text}, batch {batch}')
                    print(profile_network(spec, form, batch))
            return
        timing = dict(rounds=args.rounds, warmup=args.warmup)
        timing['budget'] = args.seconds
        models = run_benchmark(
            progress(specs), form, progress(batch_sizes), **timing
        )
        report = dict(
            command=shlex.join(['python', sys.argv[0], *words]),
            environment=environment(args.device),
            form=asdict(form),
            models=models,
            baseline=args.baseline,
        )
        print(markdown(report), end='')
        if args.out_dir:
            write_report(report, args.out_dir)


if __name__ == '__main__':
    main()

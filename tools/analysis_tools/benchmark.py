"""Time networks side by side: ours, timm's, and those of any config.

A network is named KIND:NETWORK@SIZE, such as mobilemamba:b1@256,
timm:efficientvit_m5@224 or configs/det/CONFIG.py@800x1344 (height x width);
without a size it takes its own. Options behind it, such as
mobilemamba:b1,deploy=no,backend=parallel,compile=default,dtype=bfloat16,
differ from those of the run. With runtime=onnxruntime or runtime=openvino a
network is exported first; scan=FORM and chunk=N say how its scan goes out.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from mmengine.device import get_device

from mmmobilemamba.analysis.benchmark import (
    Settings,
    compare,
    profile_network,
    run_benchmark,
)
from mmmobilemamba.analysis.benchmark_report import (
    check_out_dir,
    environment,
    markdown,
    write_report,
)
from mmmobilemamba.analysis.published import PAPER_MODELS, PAPER_PAIRS
from mmmobilemamba.analysis.requests import (
    COMPILE_MODES,
    DTYPES,
    Form,
    Request,
    parse_request,
)
from mmmobilemamba.analysis.runtime_tables import (
    DEPLOY_MODELS,
    DEPLOY_PAIRS,
    SCAN_MAPS,
    SCAN_MODELS,
    SCAN_PAIRS,
)
from mmmobilemamba.apis.command_line import check_device, user_errors
from mmmobilemamba.deploy import RUNTIMES
from mmmobilemamba.ops import BACKENDS

# Networks of a table, and which of them are compared with which.
TABLES = dict(
    paper=(PAPER_MODELS, PAPER_PAIRS),
    deploy=(DEPLOY_MODELS, DEPLOY_PAIRS),
    scans=(SCAN_MODELS, SCAN_PAIRS),
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'models', nargs='*', metavar='MODEL', help='networks to time'
    )
    parser.add_argument(
        '--table',
        choices=list(TABLES),
        help="add the networks of a table: the paper's efficiency table with "
        'its peers; B1 and its peers in all runtimes; the forms of the scan, '
        'stage by stage',
    )
    parser.add_argument(
        '--baseline',
        metavar='MODEL',
        help='one of the networks, with which the others are compared',
    )
    form = parser.add_argument_group('form of the networks')
    form.add_argument(
        '--plain',
        action='store_true',
        help='time the networks as trained; by default what is fixed after '
        'training is fused, in ours and in the peers',
    )
    form.add_argument(
        '--backends',
        nargs='+',
        choices=BACKENDS,
        default=[],
        help='time ours once with each of these scans; by default with the '
        'fastest at hand',
    )
    form.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='dtype of weights and pictures, or of autocast with --train; '
        'default: %(default)s',
    )
    form.add_argument(
        '--channels-last', action='store_true', help='lay maps out so'
    )
    form.add_argument(
        '--compile',
        nargs='?',
        const='default',
        choices=COMPILE_MODES,
        help='compile with torch.compile, weights as constants',
    )
    form.add_argument(
        '--runtime',
        choices=RUNTIMES,
        help='export all networks, and run them in this',
    )
    form.add_argument(
        '--no-freezing',
        action='store_true',
        help='do not let the compiler take weights as constants',
    )
    run = parser.add_argument_group('measuring')
    run.add_argument(
        '--device',
        default=get_device(),
        help='where to run; default here: %(default)s',
    )
    run.add_argument('--threads', type=int, help='threads of torch on a CPU')
    run.add_argument(
        '--batch-sizes',
        type=int,
        nargs='+',
        default=[1, 16],
        metavar='N',
        help='pictures per call, each timed by itself; default: 1 16',
    )
    run.add_argument(
        '--train',
        action='store_true',
        help='time forward and backward of training classifiers',
    )
    run.add_argument(
        '--rounds',
        type=int,
        default=20,
        help='interleaved rounds; default: %(default)s',
    )
    run.add_argument(
        '--seconds',
        type=float,
        help='begin no new round after this long, per batch size',
    )
    run.add_argument(
        '--warmup',
        type=int,
        default=3,
        help='untimed calls before; default: %(default)s',
    )
    run.add_argument(
        '--memory',
        action='store_true',
        help='measure memory on a CPU too, in a process for each network',
    )
    run.add_argument(
        '--breakdown',
        action='store_true',
        help='instead of comparing, show where the time of each network goes',
    )
    out = parser.add_argument_group('results')
    out.add_argument(
        '--export-dir',
        default=Settings.export_dir,
        help='folder that keeps exported networks for the next run; default: '
        '%(default)s',
    )
    out.add_argument(
        '--out-dir',
        help='folder that takes benchmark.json, .md and .png; by default the '
        'tables are printed only',
    )
    out.add_argument(
        '--overwrite',
        action='store_true',
        help="replace an earlier run's files in --out-dir",
    )
    return parser


def read_requests(args: argparse.Namespace) -> list[Request]:
    """Return the networks that were asked for, in order."""
    form = Form(
        deploy=not (args.plain or args.train),
        compile=args.compile,
        channels_last=args.channels_last,
        dtype=args.dtype,
        runtime=args.runtime,
    )
    names = [*args.models, *(TABLES[args.table][0] if args.table else ())]
    requests = []
    for name in dict.fromkeys(names):
        request = parse_request(name, form)
        if request.kind != 'mobilemamba' or ',backend=' in name:
            requests.append(request)
            continue
        variants = [f'{name},backend={b}' for b in args.backends] or [name]
        requests += [parse_request(variant, form) for variant in variants]
    return requests


def read_settings(
    args: argparse.Namespace, requests: list[Request]
) -> Settings:
    """Return how to run, with the pairs that are to be compared."""
    labels = [request.label for request in requests]
    pairs = []
    if args.baseline:
        pairs = [(x, args.baseline) for x in labels if x != args.baseline]
    if args.table:
        pairs += [p for p in TABLES[args.table][1] if set(p) <= set(labels)]
    return Settings(
        device=args.device,
        batch_sizes=tuple(dict.fromkeys(args.batch_sizes)),
        train=args.train,
        threads=args.threads,
        freezing=not args.no_freezing,
        rounds=args.rounds,
        budget=args.seconds,
        warmup=args.warmup,
        memory=args.memory,
        pairs=tuple(dict.fromkeys(pairs)),
        export_dir=args.export_dir,
    )


def run_apart(requests: Sequence[Request], settings: Settings) -> list[dict]:
    """Time maps of different sizes one after the other.

    Only forms of one map are compared, in short turns, so that more of them
    fit in.
    """
    settings = replace(settings, pairs=(), min_turn=0.02)
    models = []
    for name, _ in SCAN_MAPS:
        group = [r for r in requests if r.label.startswith(f'{name},')]
        models += run_benchmark(group, settings, say)
    return models


def widen_kernel_cache() -> None:
    """Let oneDNN keep the kernels of all networks of a run.

    It keeps 1024. Networks in turn would drive each other's out, and each
    would compile its own again at every turn, which it never does alone.
    """
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '65536')


def say(text: str) -> None:
    """Show progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(
        ['python', 'tools/analysis_tools/benchmark.py', *words]
    )
    widen_kernel_cache()
    with user_errors(parser):
        check_device(args.device)
        requests = read_requests(args)
        settings = read_settings(args, requests)
        if args.breakdown:
            for request in requests:
                say(f'profiling {request.label}')
                print(profile_network(request, settings))
            return
        folder = args.out_dir and check_out_dir(args.out_dir, args.overwrite)
        if args.table == 'scans':
            models = run_apart(requests, settings)
        else:
            models = run_benchmark(requests, settings, say)
        report = dict(
            command=command,
            environment=environment(args.device, args.threads),
            settings=asdict(settings),
            models=models,
            pairs=compare(models, settings.pairs),
        )
        print(markdown(report), end='')
        if folder:
            files = write_report(report, folder)
            say(f'Results are in {", ".join(map(str, files))}')


if __name__ == '__main__':
    main()

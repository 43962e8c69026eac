"""Arguments of the tools that run an exported file."""

from argparse import ArgumentParser, Namespace

from . import RUNTIMES, is_onnx


def add_runtime_arguments(parser: ArgumentParser) -> None:
    """Add what runs an exported file.

    Args:
        parser (ArgumentParser): Parser of a tool that takes such files.
    """
    parser.add_argument(
        '--runtime',
        choices=RUNTIMES,
        help=f'what runs an .onnx file; default: {RUNTIMES[0]}',
    )
    parser.add_argument(
        '--threads', type=int, help='threads that run an .onnx file'
    )


def runtime_of(args: Namespace) -> dict:
    """Return how a file is run, or refuse to run a checkpoint so.

    Args:
        args (Namespace): Parsed arguments of :func:`add_runtime_arguments`,
            and ``checkpoint``.

    Returns:
        dict: ``runtime`` and ``threads`` of a session.

    Raises:
        ValueError: A runtime or threads were given for a checkpoint.
    """
    if not is_onnx(args.checkpoint):
        for name in ('runtime', 'threads'):
            value = getattr(args, name)
            if value is not None:
                raise ValueError(
                    f'--{name} {value} is for an .onnx file; '
                    f'{args.checkpoint} is a checkpoint.'
                )
    return dict(runtime=args.runtime or RUNTIMES[0], threads=args.threads)

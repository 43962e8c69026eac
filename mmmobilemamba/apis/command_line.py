"""Arguments and error messages that the tools share."""

import errno
import logging
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import DictAction
from mmengine.logging import print_log

_GOES_ON = 'Checkpoints stay as they are: --resume goes on from the latest.'


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add what training and testing have in common to a parser."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints; by default that of the config, '
        'or work_dirs/<name of the config>',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run',
    )
    # torch.distributed.launch passes one spelling or the other.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help='set by the launcher'
    )


def add_cfg_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options`` to a parser."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, e.g. '
        'train_dataloader.batch_size=4 or key="[a,b]" for a list',
    )


def add_compile_argument(parser: ArgumentParser) -> None:
    """Add ``--compile`` to a parser of a tool that predicts."""
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the backbone with its weights as constants; the first '
        'image of a size takes a minute',
    )


def check_device(name: str) -> torch.device:
    """Return the device of ``--device``, or raise a ValueError."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(
            f'--device {name} cannot be used: {reason}'
        ) from error
    return device


def export_local_rank(args: Namespace) -> None:
    """Hand an old launcher's local rank to mmengine."""
    if args.launcher != 'none' and args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


@contextmanager
def user_errors(parser: ArgumentParser) -> Iterator[None]:
    """End the tool with the message alone where the input is at fault."""
    try:
        yield
    except (
        *(OSError, ValueError, TypeError, ImportError),
        AssertionError,  # of the host libraries, for what a config says
    ) as error:
        message = str(error) or repr(error)
    except KeyError as error:
        # mmengine's, for a type that no registry has.
        message = str(error.args[0])
        if 'registry' not in message:
            raise
    else:
        return
    parser.exit(2, f'{parser.prog}: error: {message}\n')


@contextmanager
def run_errors(parser: ArgumentParser) -> Iterator[None]:
    """End a run with the message alone where its files are at fault.

    That is where this package found it, and named it; the disk is full; or a
    process died or hung that the run cannot go on without. The log gets the
    message too.
    """
    try:
        yield
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print_log(message, 'current', logging.ERROR)
        parser.exit(2, f'{parser.prog}: error: {message}\n')


def _message(error: Exception) -> str | None:
    """Return what a user needs to know of an error, None for all of it."""
    text = str(error).rstrip()
    full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)
    ours = type(error).__module__.startswith('mmmobilemamba.')
    if isinstance(error, OSError) and (full or ours):
        return f'{text} Once that is mended, --resume goes on.'
    if isinstance(error, FileNotFoundError):
        return text
    # mmengine builds metrics and schedules when it begins to run.
    if isinstance(error, KeyError) and 'registry' in text:
        return error.args[0]
    if ours:
        # Where it comes from a loading process, its traceback comes first.
        name = f'{type(error).__name__}: '
        return text.rpartition(name)[2] if name in text else text
    if not isinstance(error, RuntimeError):
        return None
    text = text.partition('\n')[0].rstrip('. ')
    # "DataLoader worker (pid 1) is killed by", "DataLoader timed out"
    if text.startswith('DataLoader '):
        return (
            f'{text}. A process that loads data ended or hangs; where it was '
            f'killed, memory may have run out. {_GOES_ON}'
        )
    # "[.../gloo/transport/tcp/pair.cc:1] Connection closed by peer"
    if 'gloo' in text.partition(']')[0]:
        return (
            f'{text}. Another process of this run ended, or hangs for longer '
            f'than env_cfg.dist_cfg.timeout seconds. {_GOES_ON}'
        )
    return None

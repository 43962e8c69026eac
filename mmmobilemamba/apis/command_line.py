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


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add what training and testing have in common.

    Args:
        parser (ArgumentParser): Parser of a tool.
    """
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
    """Add ``--cfg-options``.

    Args:
        parser (ArgumentParser): Parser of a tool.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, e.g. '
        'train_dataloader.batch_size=4 or key="[a,b]" for a list',
    )


def check_device(name: str) -> torch.device:
    """Return a device that is there.

    Args:
        name (str): What the user gave as ``--device``.

    Returns:
        torch.device: The device.

    Raises:
        ValueError: torch knows no such device, or the machine has none.
    """
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
    """Hand an old launcher's local rank to mmengine.

    Args:
        args (Namespace): Parsed arguments of :func:`add_run_arguments`.
    """
    if args.launcher != 'none' and args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


@contextmanager
def user_errors(parser: ArgumentParser) -> Iterator[None]:
    """End the tool with the message alone where the input is at fault.

    Args:
        parser (ArgumentParser): Parser of the tool, for its name.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')


@contextmanager
def run_errors(parser: ArgumentParser) -> Iterator[None]:
    """End a run with the message alone where its data is at fault.

    The same for a full disk, and for a process that the run cannot go on
    without, and which died or hung: one that loads data, or another one that
    trains. The log gets the message too.

    Args:
        parser (ArgumentParser): Parser of the tool, for its name.
    """
    # Here, so that tools without data need not import it.
    from mmmobilemamba.datasets import DataFaultError
    from mmmobilemamba.engine import UnsavedError

    try:
        yield
    except DataFaultError as error:
        # Where it comes from a loading process, its traceback comes first.
        message = str(error).rstrip().rpartition('\n')[2]
        message = message.partition('DataFaultError: ')[2] or message
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and not isinstance(error, UnsavedError):
            raise
        message = f'{error} Once that is mended, --resume goes on.'
    except RuntimeError as error:
        message = str(error).partition('\n')[0]
        advice = _advice(message)
        if advice is None:
            raise
        message = f'{message.rstrip(". ")}. {advice}'
    else:
        return
    print_log(message, 'current', logging.ERROR)
    parser.exit(2, f'{parser.prog}: error: {message}\n')


def _advice(message: str) -> str | None:
    """Return what to do after an error of torch, known by its first words."""
    goes_on = 'Checkpoints stay as they are: --resume goes on from the latest.'
    # "DataLoader worker (pid 1) is killed by", "DataLoader timed out"
    if message.startswith('DataLoader '):
        return (
            'A process that loads data ended or hangs; where it was killed, '
            f'memory may have run out. {goes_on}'
        )
    # "[.../gloo/transport/tcp/pair.cc:1] Connection closed by peer"
    if 'gloo' in message.partition(']')[0]:
        return (
            'Another process of this run ended, or hangs for longer than '
            f'env_cfg.dist_cfg.timeout seconds. {goes_on}'
        )
    return None

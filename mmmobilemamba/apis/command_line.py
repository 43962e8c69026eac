"""Arguments and error messages that the tools share."""

import errno
import logging
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import DictAction
from mmengine.logging import print_log

# AssertionError: of the host libraries, for what a config says.
_INPUT_ERRORS = (OSError, ValueError, TypeError, ImportError, AssertionError)
_GOES_ON = 'Checkpoints stay as they are: --resume goes on from the latest.'


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add what training and testing have in common to a parser."""
    add = parser.add_argument
    text = 'folder for logs and checkpoints; by default that of the config, '
    text += 'or work_dirs/<name of the config>'
    add('--work-dir', help=text)
    add_cfg_options(parser)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    text = 'what started the processes of a distributed run'
    add('--launcher', choices=launchers, default='none', help=text)
    # torch.distributed.launch passes one spelling or the other, and sets
    # LOCAL_RANK as well, which mmengine reads.
    text = 'set by the launcher'
    add('--local_rank', '--local-rank', type=int, help=text)


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
    text = 'compile the backbone with its weights as constants; the first '
    text += 'image of a size takes a minute'
    parser.add_argument('--compile', action='store_true', help=text)


def check_device(name: str) -> torch.device:
    """Return the device of ``--device``, or raise a ValueError."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'--device {name}: {reason}') from error


@contextmanager
def user_errors(parser: ArgumentParser, running: bool = False) -> Iterator:
    """End the tool with the message alone where the input is at fault.

    While a run goes on (``running``), that is where this package found it,
    and named it; a file is missing; the disk is full; or a process died or
    hung that the run cannot go on without. The log gets the message too.
    """
    try:
        yield
    except Exception as error:
        text = str(error).rstrip() or repr(error)
        if isinstance(error, KeyError) and 'registry' in text:
            message = error.args[0]  # mmengine's, for an unknown type
        elif running:
            message = _of_run(error, text)
        else:
            message = text if isinstance(error, _INPUT_ERRORS) else None
        if message is None:
            raise
        if running:
            print_log(message, 'current', logging.ERROR)
        parser.exit(2, f'{parser.prog}: error: {message}\n')


def _of_run(error: Exception, text: str) -> str | None:
    """Return what a user needs to know of an error, None for all of it."""
    full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)
    if type(error).__module__.startswith('mmmobilemamba.') or full:
        # Where it comes from a loading process, its traceback comes first.
        text = text.rpartition(f'{type(error).__name__}: ')[2]
        return f'{text} {_GOES_ON}' if isinstance(error, OSError) else text
    if isinstance(error, FileNotFoundError):
        return text
    text = text.partition('\n')[0].rstrip('. ')
    # "DataLoader worker (pid 1) is killed by", "DataLoader timed out"
    if isinstance(error, RuntimeError) and text.startswith('DataLoader '):
        text += '. A process that loads data ended or hangs; where it was '
        return f'{text}killed, memory may have run out. {_GOES_ON}'
    # "[.../gloo/transport/tcp/pair.cc:1] Connection closed by peer"
    if isinstance(error, RuntimeError) and 'gloo' in text.partition(']')[0]:
        text += '. Another process of this run ended, or hangs for longer '
        return f'{text}than env_cfg.dist_cfg.timeout seconds. {_GOES_ON}'
    return None

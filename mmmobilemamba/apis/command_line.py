"""Arguments and error messages that the tools share."""

import errno
import logging
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import DictAction
from mmengine.logging import print_log

# Hosts' AssertionErrors, and 'ConfigDict' below, are of what a config says.
_INPUT_ERRORS = (OSError, ValueError, TypeError, ImportError, AssertionError)
_GOES_ON = 'Checkpoints stay as they are: --resume goes on from the latest.'


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add what training and testing have in common to a parser."""
    add = parser.add_argument
    text = 'logs and checkpoints; default: work_dirs/<name of the config>'
    add('--work-dir', help=text)
    add_cfg_options(parser)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    add('--launcher', choices=launchers, default='none')
    # The launchers' spellings; mmengine reads LOCAL_RANK.
    add('--local_rank', '--local-rank', type=int, help='set by the launcher')


def add_cfg_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options`` to a parser."""
    text = 'settings that replace those of the config, e.g. '
    text += 'train_dataloader.batch_size=4 or key="[a,b]" for a list'
    several = dict(nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--cfg-options', **several, help=text)


def check_device(name: str) -> torch.device:
    """Return the device of ``--device``, or raise a ValueError."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device {name}: {error}') from error


@contextmanager
def user_errors(parser: ArgumentParser, running: bool = False) -> Iterator:
    """End the tool with the message alone where the input is at fault.

    While a run goes on (``running``), that is where this package found it, a
    file is missing, the disk is full, or a process of the run died or hangs.
    The log gets the message too.
    """
    try:
        yield
    except Exception as error:
        text = str(error).rstrip() or repr(error)
        if isinstance(error, KeyError) and 'registry' in text:
            text = error.args[0]  # mmengine's, for an unknown type
        elif running:
            text = _of_run(error, text)
        elif not isinstance(error, _INPUT_ERRORS) and 'ConfigDict' not in text:
            text = None
        if text is None:
            raise
        if running:
            print_log(text, 'current', logging.ERROR)
        parser.exit(2, f'{parser.prog}: error: {text}\n')


def _of_run(error: Exception, text: str) -> str | None:
    """Return what a user needs to know of an error, None for all of it."""
    if isinstance(error, FileNotFoundError):
        return text
    full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)
    if full or type(error).__module__.startswith('mmmobilemamba.'):
        # Where it comes from a loading process, its traceback comes first.
        text = text.rpartition(f'{type(error).__name__}: ')[2]
        return f'{text} {_GOES_ON}' if isinstance(error, OSError) else text
    # "DataLoader worker (pid 1) is killed by", "DataLoader timed out",
    # "[.../gloo/transport/tcp/pair.cc:1] Connection closed by peer"
    process = re.match(r'DataLoader .*|\[.*gloo.*\].*', text)
    if process and isinstance(error, RuntimeError):
        return (
            f'{process[0]} A process of this run ended, maybe for lack of '
            'memory, or hung for longer than env_cfg.dist_cfg.timeout or '
            f'train_dataloader.timeout, in seconds. {_GOES_ON}'
        )
    return None

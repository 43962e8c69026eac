"""Fixtures that more than one folder of tests uses."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from mmmobilemamba.checkpoints.forks import find_fork_configs

REPO = Path(__file__).resolve().parents[1]

# The same few examples every time; --hypothesis-profile=long draws others.
settings.register_profile(
    'short', max_examples=25, derandomize=True, deadline=None
)
settings.register_profile('long', max_examples=1000, deadline=None)
settings.load_profile('short')


def pytest_configure():
    # Small tensors gain nothing from more threads, and lose much where
    # several processes share two cores. Processes of tests inherit it.
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    # Tests read configs by mmengine itself, too.
    find_fork_configs()


@pytest.fixture(autouse=True)
def forget_earlier_runs():
    """Drop what mmengine keeps of other Runners in this process.

    A visualizer of the same name is handed out again, with the backends of
    the run before, and the last logger writes to a stream that pytest has
    closed.
    """
    kinds = [MMLogger, Visualizer]
    for kind in kinds:
        kind._instance_dict.clear()  # each class has one of its own
        kinds += kind.__subclasses__()


@pytest.fixture(scope='session')
def repo():
    """Give the root of the checkout."""
    return REPO

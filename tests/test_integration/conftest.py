"""Embedded data shared by the tests that train."""

import pytest
from starter import Starter

from mmmobilemamba.datasets import make_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """Make four training and two held-out scenes of 128 px."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(folder, num_train=4, num_val=2, size=128)
    return folder


@pytest.fixture(scope='module')
def starter(tmp_path_factory):
    """Give what runs train.py in processes of their own."""
    starter = Starter(tmp_path_factory.mktemp('starter') / 'output.txt')
    yield starter
    starter.close()

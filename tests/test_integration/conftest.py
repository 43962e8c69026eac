"""Embedded data shared by the tests that train."""

import pytest

from mmmobilemamba.datasets import make_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """Make four training and two held-out scenes of 128 px."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(folder, num_train=4, num_val=2, size=128)
    return folder

"""Fixtures of the CPU code."""

import pytest
import selective_scan as ss
import torch


@pytest.fixture(params=['plain', 'avx2', 'avx512'])
def variant(request):
    """Run a test with each instruction set that this machine has."""
    try:
        ss.set_cpu_variant(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    ss.set_cpu_variant('best')


@pytest.fixture
def threads():
    """Set the number of threads; it is put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)

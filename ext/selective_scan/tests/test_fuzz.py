"""Random calls of the operators; tools/fuzz_operators.py makes many more."""

import pytest
import torch
from fuzz_calls import KINDS, run_call

CALLS = 4000


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_random_calls():
    seen = {run_call(1, index) for index in range(CALLS)}
    wanted = {(kind, taken) for kind in KINDS for taken in (True, False)}
    assert seen == wanted

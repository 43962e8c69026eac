"""The CUDA sources compile without a warning where nvcc is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / 'tools' / 'check_cuda.py'


@pytest.mark.skipif(shutil.which('nvcc') is None, reason='needs nvcc')
@pytest.mark.skipif(not SCRIPT.exists(), reason='needs the source tree')
def test_cuda_sources_compile_cleanly():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

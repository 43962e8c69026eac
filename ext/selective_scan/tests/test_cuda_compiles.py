"""Where nvcc is: no warning in the CUDA sources, no spill for one state."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / 'tools' / 'kernel_report.py'


@pytest.mark.skipif(shutil.which('nvcc') is None, reason='needs nvcc')
@pytest.mark.skipif(not SCRIPT.exists(), reason='needs the source tree')
def test_kernels_compile_cleanly_and_do_not_spill():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

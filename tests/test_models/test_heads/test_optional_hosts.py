"""A head is there where its host library is, and hides no other error."""

import subprocess
import sys

import pytest

# A fresh interpreter in which some packages look as if not installed.
CODE = """
import importlib.machinery as machinery
import sys

class Finder(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split('.')[0] in {absent!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path = [
    Finder if f is machinery.PathFinder else f for f in sys.meta_path
]
from mmengine.registry import MODELS
import mmmobilemamba.models.heads as heads
print(*sorted(heads.__all__))
MODELS.build(dict(
    type='mmmobilemamba.DeconvFPN', in_channels=[8], out_channels=8))
"""


@pytest.mark.parametrize(
    'absent, heads',
    [
        (['mmdet', 'mmseg', 'mmpretrain'], []),
        (['mmdet', 'mmseg'], ['BNLinearClsHead']),
        (['mmseg', 'mmpretrain'], ['SSDHead']),
    ],
)
def test_heads_follow_the_installed_libraries(absent, heads):
    for host in {'mmdet', 'mmpretrain'} - set(absent):
        pytest.importorskip(host)
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CODE.format(absent=absent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == heads

"""Our parts build where a host library is broken."""

import subprocess
import sys

import pytest

# As with transformers 5; MMDetection falls over it by itself.
CODE = """
import importlib.machinery as machinery
import sys

class Finder(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name == 'mmpretrain.models':
            spec.loader.exec_module = cls.fall
        return spec

    @staticmethod
    def fall(module):
        raise TypeError('no such keyword')

sys.meta_path = [
    Finder if f is machinery.PathFinder else f for f in sys.meta_path
]
from mmengine.registry import MODELS

arch = dict(channels=(24, 24, 24), depths=(1, 1, 1))
MODELS.build(dict(
    type='mmmobilemamba.PyramidBackbone',
    backbone=dict(type='mmmobilemamba.MobileMamba', arch=arch),
    neck=dict(type='mmmobilemamba.DeconvFPN', out_channels=8, num_finer=1),
))
import mmmobilemamba.models as models
assert hasattr(models, 'SSDHead') and not hasattr(models, 'BNLinearClsHead')
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.environment import collect_env

load_config('configs/det/retinanet/retinanet_mobilemamba-b1_fpn_1x_coco.py')
try:
    load_config('configs/cls/mobilemamba/mobilemamba-b1_8xb32_in1k.py')
except ImportError as error:
    assert 'TypeError: no such keyword' in str(error), error
    assert 'pip install "mmpretrain==1.2.0"' in str(error), error
else:
    raise AssertionError
assert 'TypeError: no such keyword' in str(collect_env()[1])
"""


def test_broken_host_is_left_out(repo):
    for host in ('mmdet', 'mmpretrain'):
        pytest.importorskip(host)
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CODE],
        cwd=repo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said = [x for x in run.stdout.splitlines() if 'is left out' in x]
    assert len(said) == 1 and 'mmpretrain' in said[0]
    assert 'no such keyword' in said[0]

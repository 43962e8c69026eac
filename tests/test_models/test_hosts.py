"""Our parts build whatever the host libraries beside them do."""

import subprocess
import sys

import pytest

# A fresh interpreter in which some packages are missing, or broken at once.
CODE = """
import importlib.machinery as machinery
import sys

ABSENT, BROKEN = {absent!r}, {broken!r}

class Finder(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split('.')[0] in ABSENT:
            return None
        spec = super().find_spec(name, path, target)
        if name in BROKEN:
            spec.loader.exec_module = cls.fall
        return spec

    @staticmethod
    def fall(module):
        raise TypeError('no such keyword')

sys.meta_path = [
    Finder if f is machinery.PathFinder else f for f in sys.meta_path
]
from mmengine.registry import MODELS

neck = dict(type='mmmobilemamba.DeconvFPN', out_channels=8)
arch = dict(channels=(24, 24, 24), depths=(1, 1, 1))
MODELS.build(dict(
    type='mmmobilemamba.PyramidBackbone',
    backbone=dict(type='mmmobilemamba.MobileMamba', arch=arch),
    neck=dict(neck, num_finer=1),
))
import mmmobilemamba.models as models
found = [n for n in ('BNLinearClsHead', 'SSDHead') if hasattr(models, n)]
if 'mmpretrain.models' in BROKEN:
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
print('heads', *found)
"""


@pytest.mark.parametrize(
    'absent, broken, heads',
    [
        (['mmdet', 'mmseg', 'mmpretrain'], [], []),
        # As with transformers 5; MMDetection falls over it by itself.
        ([], ['mmpretrain.models'], ['SSDHead']),
        (['mmpretrain', 'timm'], ['mmdet.models'], []),
    ],
)
def test_parts_follow_the_hosts_that_work(repo, absent, broken, heads):
    for host in ('mmdet', 'mmpretrain'):
        pytest.importorskip(host)
    code = CODE.format(absent=absent, broken=broken)
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=repo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    *said, last = run.stdout.splitlines()
    assert last.split() == ['heads', *heads]
    for library in {name.partition('.')[0] for name in broken}:
        lines = [line for line in said if f'{library} is left out' in line]
        assert len(lines) == 1 and 'no such keyword' in lines[0]

"""Our parts build where a host library is broken."""

import subprocess
import sys

import pytest

from mmmobilemamba.registry import _at_fault, _to_mend

# As with transformers 5; MMDetection falls over it by itself.
CODE = """
import sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'mmpretrain.models':
            raise TypeError('no such keyword')

sys.meta_path.insert(0, Finder)
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
    command = [sys.executable, '-W', 'ignore', '-c', CODE]
    run = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (said,) = [x for x in run.stdout.splitlines() if 'is left out' in x]
    assert 'mmpretrain' in said and 'no such keyword' in said


@pytest.mark.parametrize(
    ('module', 'error', 'cure'),
    [
        ('mmpretrain.models', 'TypeError()', '"transformers<5"'),
        ('pycocotools.mask', 'ValueError()', '--force-reinstall pycocotools'),
        ('cv2', 'ImportError(name="cv2")', '--force-reinstall opencv'),
        ('absent', 'ModuleNotFoundError(name="absent.x")', 'reinstall absent'),
        ('mmcv.ops', 'ModuleNotFoundError(name="mmcv._ext")', 'MMCV_WITH_OPS'),
        ('mmengine', 'KeyError()', '"mmdet==3.3.0"'),
        ('mmdet.models', 'KeyError()', '"mmdet==3.3.0"'),
    ],
)
def test_cure_is_of_what_is_broken(module, error, cure):
    """The innermost library counts, or the one that is missing."""
    try:
        exec(f'raise {error}', dict(__name__=module))
    except Exception as raised:
        assert cure in _to_mend('mmdet', raised)
        # MMPretrain imports MMDetection, and works without.
        fault = _at_fault('mmpretrain', raised)
        assert (fault == 'mmdet') == module.startswith('mmdet')

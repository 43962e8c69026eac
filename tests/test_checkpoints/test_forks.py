"""The maintained forks: other distributions of the same modules."""

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmmobilemamba.apis import environment
from mmmobilemamba.checkpoints import forks

CONFIG = 'configs/seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py'


def test_configs_of_mmseg_are_found(monkeypatch, repo):
    """By the module, as there is no distribution of the name."""
    pytest.importorskip('mmseg')
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'no-such-distribution')
    forks.find_fork_configs()
    assert Config.fromfile(repo / CONFIG).model.type == 'EncoderDecoder'


def test_report_names_the_forks(monkeypatch):
    def version(name):
        """Have the distributions' names as where the forks are installed."""
        if name.startswith('mm') and '-' not in name:
            return ''
        return forks.installed_version(name.replace('onedl-', ''))

    monkeypatch.setattr(environment, 'installed_version', version)
    found, faults = environment.collect_env()
    assert found['mmcv'].endswith(' of onedl-mmcv')
    assert not [fault for fault in faults if 'mmcv' in fault[0]]


def test_package_pulls_in_neither(repo):
    """Either would overwrite the modules of the other."""
    lines = (repo / 'requirements/runtime.txt').read_text().splitlines()
    assert not [line for line in lines if 'mm' in line.partition('#')[0]]

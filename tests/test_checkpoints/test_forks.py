"""The maintained forks: other distributions of the same modules."""

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils

from mmmobilemamba.apis.environment import collect_env
from mmmobilemamba.checkpoints import forks

CONFIG = 'configs/seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py'


@pytest.fixture
def forked(monkeypatch):
    """Have the distributions' names as where the forks are installed."""
    original = forks.installed_version

    def version(distribution):
        if distribution.startswith('mm') and '-' not in distribution:
            return ''
        return original(distribution.replace('onedl-', ''))

    for module in ('checkpoints.forks', 'apis.environment'):
        path = f'mmmobilemamba.{module}.installed_version'
        monkeypatch.setattr(path, version)
    monkeypatch.setattr(
        config_utils, 'MODULE2PACKAGE', dict(config_utils.MODULE2PACKAGE)
    )


def test_configs_of_mmseg_are_found(forked, repo):
    pytest.importorskip('mmseg')
    forks.find_fork_configs()
    assert config_utils.MODULE2PACKAGE['mmseg'] == 'mmseg'
    # By the module alone, as there is no distribution of the name.
    assert Config.fromfile(repo / CONFIG).model.type == 'EncoderDecoder'


def test_report_names_the_forks(forked):
    found, faults = collect_env()
    assert found['mmcv'].endswith(' of onedl-mmcv')
    assert not [fault for fault in faults if 'mmcv' in fault[0]]


def test_package_pulls_in_neither(repo):
    """Either would overwrite the modules of the other."""
    lines = (repo / 'requirements/runtime.txt').read_text().splitlines()
    assert not [line for line in lines if 'mm' in line.partition('#')[0]]

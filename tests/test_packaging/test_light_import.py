"""What runs where host libraries and the extension are not installed."""

from functools import cache

import pytest
from environments import Environment, link_libraries

HOSTS = ('mmdet', 'mmpretrain', 'mmseg')

TRAIN_ONE_STEP = """
import torch
from mmmobilemamba.registry import MODELS
from mmmobilemamba.ops import scan_backend

backbone = MODELS.build(dict(
    type='mmmobilemamba.MobileMamba',
    arch=dict(channels=(32, 48, 64), depths=(1, 1, 1)),
))
maps = backbone(torch.randn(2, 3, 96, 64))
sum(m.square().mean() for m in maps).backward()
print(scan_backend(), *(tuple(m.shape[1:]) for m in maps), sep=';')
"""

# The state that a library must leave as it found it.
COMPARE_STATE = """
import logging, os, random, signal, sys
import mmcv.ops, mmengine.runner, numpy, torch
import {hosts}

def state():
    return (
        dict(os.environ),
        list(sys.path),
        torch.get_num_threads(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
        set(map(repr, torch.serialization.get_safe_globals())),
        list(logging.getLogger().handlers),
        signal.getsignal(signal.SIGINT),
        (random.getstate(), numpy.random.get_state()[1].tolist(),
         torch.get_rng_state().tolist()),
    )

before = state()
import mmmobilemamba.models, mmmobilemamba.datasets, mmmobilemamba.engine
print([pair for pair in zip(before, state()) if pair[0] != pair[1]])
"""


@pytest.fixture(scope='module')
def environment_with(repo, tmp_path_factory):
    @cache
    def make(*hosts):
        libraries = tmp_path_factory.mktemp('libraries')
        # mmmobilemamba is taken from the checkout.
        without = {'selective_scan', 'mmmobilemamba', *HOSTS} - set(hosts)
        link_libraries(libraries, without)
        environment = Environment(tmp_path_factory.mktemp('env'), libraries)
        (environment.site / 'checkout.pth').write_text(f'{repo}\n')
        return environment

    return make


def test_backbone_trains_without_hosts_and_extension(environment_with):
    said = environment_with().run('-c', TRAIN_ONE_STEP).splitlines()
    assert said[-1] == 'parallel;(32, 6, 4);(48, 3, 2);(64, 2, 1)'


@pytest.mark.parametrize('host', HOSTS)
def test_models_import_with_one_host_alone(environment_with, host):
    code = f'import {host}, sys, mmmobilemamba.models;'
    code += 'print(*mmmobilemamba.registry.MODELS.module_dict);'
    code += f'print(*({set(HOSTS)} & set(sys.modules)))'
    names, loaded = environment_with(host).run('-c', code).splitlines()[-2:]
    assert {'MobileMamba', 'DeconvFPN'} <= set(names.split())
    assert ('SSDHead' in names.split()) == (host == 'mmdet')
    assert ('BNLinearClsHead' in names.split()) == (host == 'mmpretrain')
    assert loaded == host


def test_package_import_pulls_in_nothing_heavy(environment_with):
    code = 'import sys; before = set(sys.modules); import mmmobilemamba;'
    code += 'print(*{m.partition(".")[0] for m in set(sys.modules) - before})'
    said = environment_with(*HOSTS).run('-c', code)
    assert said.split() == ['mmmobilemamba']


def test_imports_change_no_state(environment_with):
    environment = environment_with(*HOSTS)
    # What importing the hosts themselves changes is not ours.
    hosts = ', '.join(f'{host}.models, {host}.datasets' for host in HOSTS)
    said = environment.run('-c', COMPARE_STATE.format(hosts=hosts))
    assert said.splitlines()[-1] == '[]'
    assert list(environment.work.iterdir()) == []

"""What pip installs, and what mim makes of it, in environments of their own.

Each environment is a fresh venv that finds the libraries in the one the tests
run in, and the package only where pip put it.
"""

import shutil
import subprocess
import sys

import pytest
from environments import LIBRARIES, Environment

CONFIG = 'fpn_mobilemamba-nano_shapes-160px.py'
OTHERS = '.* build data docs ext outputs tests work_dirs'.split()
ONE_EPOCH = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2'] + [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


@pytest.fixture(scope='module')
def checkout(repo, tmp_path_factory):
    """Give a copy of the sources, as building leaves files among them."""
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info', *OTHERS)
    folder = tmp_path_factory.mktemp('sources') / 'checkout'
    return shutil.copytree(repo, folder, ignore=ignore)


@pytest.fixture(scope='module', params=['editable', 'ordinary'])
def environment(request, checkout, tmp_path_factory):
    """Give one with the checkout, or with what its sdist installs."""
    folder = tmp_path_factory.mktemp(request.param)
    environment = Environment(folder, LIBRARIES)
    if request.param == 'editable':
        environment.install('--editable', checkout)
    else:
        command = [sys.executable, 'setup.py', '-q', 'sdist', '-d', folder]
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
        environment.install(*folder.glob('*.tar.gz'))
    return environment


ordinary = pytest.mark.parametrize(
    'environment', ['ordinary'], indirect=True, scope='module'
)


def files_below(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_mim_folder_holds_configs_tools_and_index(environment, checkout):
    mim = files_below(environment.site / 'mmmobilemamba' / '.mim')
    wanted = {'model-index.yml'}
    for name in ('configs', 'tools'):
        wanted |= {f'{name}/{path}' for path in files_below(checkout / name)}
    for_checkouts = ('quickstart.sh', 'run_tests.sh', 'setup_env.sh')
    assert mim == wanted - {f'tools/{name}' for name in for_checkouts}


@ordinary
def test_wheel_holds_every_module_and_nothing_beside(environment, checkout):
    files = files_below(environment.site / 'mmmobilemamba')
    modules = {path for path in files if not path.startswith('.mim/')}
    assert modules == {
        path
        for path in files_below(checkout / 'mmmobilemamba')
        if path.endswith('.py') or path.startswith('deploy/web/')
    }
    tops = {path.name for path in environment.site.iterdir()}
    assert not tops & {'configs', 'tools', 'tests', 'ext', 'setup.py'}


def test_mim_search_lists_every_model(environment, checkout):
    found = environment.mim('search', 'mmmobilemamba', '--valid-config')
    models = {
        path.stem
        for path in checkout.glob('configs/[cds]*/*/*.py')
        if path.parent.name != '_base_'
    }
    assert models
    assert {name for name in models if f"'{name}'" not in found} == set()


@ordinary
def test_mim_makes_data_trains_and_tests(environment):
    make = 'run mmmobilemamba make_shapes data/shapes --num-train 4'.split()
    environment.mim(*make, '--num-val', '2')
    where = ('mmmobilemamba', CONFIG, '--work-dir', 'run')
    options = ('--cfg-options', *ONE_EPOCH)
    said = environment.mim('train', *where, *options)
    installed = environment.site / 'mmmobilemamba' / '.mim' / 'configs'
    assert f'{installed}/quickstart/{CONFIG}' in said
    checkpoint = environment.work / 'run' / 'epoch_1.pth'
    assert checkpoint.is_file()

    more = ('--checkpoint', str(checkpoint), *options)
    assert 'mIoU' in environment.mim('test', *where, *more)

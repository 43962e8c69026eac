"""What a user can get wrong ends with a sentence, before the work starts."""

import errno
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')


@pytest.fixture(scope='module')
def state(workspace):
    """The weights of the tiny classifier."""
    cfg = Config.fromfile(workspace / 'cls.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg.model).state_dict()


@pytest.fixture
def refuse(tool, capsys, monkeypatch, tmp_path, workspace, state):
    """Give a function that runs a tool and returns its complaint."""
    monkeypatch.chdir(tmp_path)
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    for name in ('det.py', 'cls.py'):
        (tmp_path / name).symlink_to(workspace / name)
    (tmp_path / 'full').symlink_to(workspace / 'colours' / 'blue')
    other = {'conv.weight': torch.ones(3)}
    part = {k: v for k, v in state.items() if k != 'head.fc.bias'}
    weights = dict(fitting=state, foreign=other, part=part)
    for name, tensors in weights.items():
        torch.save(dict(meta={}, state_dict=tensors), f'{name}.pth')
    (tmp_path / 'x.png').write_text('no pixels')
    for name in ('net.onnx', 'empty.py'):
        (tmp_path / name).touch()
    (tmp_path / 'empty').mkdir()

    def call(line, fails=None, ends=SystemExit):
        name, *args = line.split()

        def run(self):
            raise fails or AssertionError('the work started')

        monkeypatch.setattr(Runner, 'train', run)
        monkeypatch.setattr(Runner, 'test', run)
        with pytest.raises(ends) as ended:
            tool(name).main(args)
        said = capsys.readouterr().err
        if ends is SystemExit:
            assert ended.value.code == 2 and 'Traceback' not in said
        return said

    return call


CLASSES = 'train_dataloader.dataset.classes=[a,b,c]'
BATCH = 'train_dataloader.batch_size=99 train_dataloader.drop_last=True'
OPTIMIZER = 'optim_wrapper.optimizer.type'
DECAY = 'optim_wrapper.paramwise_cfg.norm_decay_mult'
NO_TEST = 'test_dataloader=None test_cfg=None test_evaluator=None'
FILES = (
    'val_evaluator.ann_file=gone.json '
    'train_dataloader.dataset.dataset.ann_file=none.json '
    'val_dataloader.dataset.data_prefix.img=none/'
)
KEYS = ' '.join(part.partition('=')[0] for part in FILES.split())


@pytest.mark.parametrize(
    ('line', 'named'),
    [
        ('train none.py', 'none.py'),
        (f'train det.py --cfg-options {FILES}', KEYS),
        ('train cls.py --work-dir x.png', 'x.png'),
        ('train cls.py --launcher pytorch', 'dist_train.sh'),
        ('train cls.py --resume fitting.pth', 'optimizer load_from'),
        ('train cls.py --cfg-options load_from=foreign.pth', 'conv.weight'),
        (f'train cls.py --cfg-options {BATCH}', '8 samples 99'),
        (f'train cls.py --cfg-options {CLASSES}', 'class'),
        ('train cls.py --cfg-options model.neck.type=NoNeck', 'NoNeck'),
        (f'train cls.py --cfg-options {OPTIMIZER}=Adamm', OPTIMIZER),
        ('train cls.py --cfg-options val_evaluator.a=1', 'Accuracy'),
        (f'train cls.py --cfg-options {DECAY}=0', 'base_wd'),
        ('train empty.py', 'optim_wrapper'),
        ('test cls.py fitting.pth --tta --show-dir drawn', '--tta'),
        ('test det.py fitting.pth --tta', 'model.roi_head.mask_head=None'),
        ('test cls.py part.pth', 'head.fc.bias'),
        ('test cls.py part.pth --runtime openvino', '--runtime'),
        ('test cls.py net.onnx --compile', '--compile'),
        ('test cls.py fitting.pth --out x.json', 'pkl'),
        ('test cls.py fitting.pth --show-dir x.png', 'x.png'),
        (f'test cls.py part.pth --cfg-options {NO_TEST}', 'test_dataloader'),
        ('test cls.py net.onnx --cfg-options model.a=1', 'model.a net.onnx'),
        (
            'image_demo full cls.py net.onnx --cfg-options model.a=1',
            'net.onnx',
        ),
        ('image_demo none.png cls.py fitting.pth', 'none.png'),
        ('image_demo x.png cls.py fitting.pth', 'x.png'),
        ('image_demo empty cls.py fitting.pth', 'empty'),
        ('image_demo full cls.py fitting.pth --out-dir full', 'overwrite'),
        ('image_demo full cls.py x.pth --device cuda:99', 'cuda:99'),
    ],
)
def test_ends_before_the_work_starts(refuse, line, named):
    said = refuse(line)
    assert all(words in said for words in named.split()), said


def test_library_that_is_missing(refuse, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert 'pip install "mmpretrain==1.2.0"' in refuse('train cls.py')


def test_partial_checkpoint_may_be_allowed(refuse):
    refuse('test cls.py part.pth --allow-partial', ends=AssertionError)


def test_images_of_one_name(refuse, workspace, tmp_path):
    for folder in ('blue', 'green'):
        source = workspace / 'colours' / folder / f'{folder}0.png'
        target = tmp_path / 'twice' / folder / 'same.png'
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    line = 'test cls.py fitting.pth --show-dir drawn --cfg-options '
    said = refuse(f'{line} test_dataloader.dataset.data_root=twice')
    assert 'blue/same.png' in said and 'green/same.png' in said


def test_arguments_that_launchers_and_mim_pass(tool):
    """mim passes --gpus to a train.py whose help names it."""
    parser = tool('train').make_parser()
    assert '--gpus' not in parser.format_help()
    for spelling in ('--local_rank', '--local-rank'):
        assert parser.parse_args(['x.py', f'{spelling}=3']).local_rank == 3


@pytest.mark.parametrize(
    ('error', 'named'),
    [
        (OSError(errno.ENOSPC, 'No space left', 'x.pth'), 'x.pth --resume'),
        (
            RuntimeError('[gloo/tcp/pair.cc:1] Timed out waiting\nmore'),
            'env_cfg.dist_cfg.timeout --resume',
        ),
        (KeyError('NoMetric is not in the x::metric registry.'), 'NoMetric'),
    ],
    ids=['full disk', 'silent process', 'unknown type'],
)
def test_training_that_is_cut_off(refuse, error, named):
    said = refuse('train cls.py', error)
    assert all(words in said for words in named.split()), said


@pytest.mark.parametrize('name', ['train', 'test'])
def test_slurm_job(run, repo, tmp_path, name):
    """A stand-in for srun prints what the real one would get."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    args = ('part', 'job', 'my config.py', 'x.pth', '--cfg-options', 'a=1')
    env = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='2')
    done = run(tmp_path, f'slurm_{name}.sh', *args, SRUN_ARGS='-a -b', **env)
    assert set(done.stdout.splitlines()) >= {
        *('part', '--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2', '-b'),
        *('my config.py', '--launcher=slurm', 'a=1'),
        f'{repo}/tools/{name}.py',
    }

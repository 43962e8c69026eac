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


@pytest.fixture
def refuse(tool, capsys, monkeypatch, tmp_path):
    """Give a function that runs a tool and returns its complaint."""
    monkeypatch.chdir(tmp_path)

    def call(name, *args, fails=None):
        module = tool(name)

        def run(self):
            raise fails or AssertionError('the work started')

        monkeypatch.setattr(Runner, 'train', run)
        monkeypatch.setattr(Runner, 'test', run)
        with pytest.raises(SystemExit) as ended:
            module.main(list(map(str, args)))
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert 'error: ' in said and 'Traceback' not in said
        return said

    return call


@pytest.fixture(scope='module')
def foreign(tmp_path_factory):
    """A checkpoint of another network."""
    path = tmp_path_factory.mktemp('foreign') / 'other.pth'
    torch.save(dict(meta={}, state_dict={'conv.weight': torch.ones(3)}), path)
    return path


@pytest.fixture(scope='module')
def fitting(workspace):
    """A checkpoint of the tiny classifier, as after training."""
    cfg = Config.fromfile(workspace / 'cls.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = MODELS.build(cfg.model).state_dict()
    path = workspace / 'fitting.pth'
    torch.save(dict(meta={}, state_dict=state), path)
    return path


@pytest.fixture
def complaint(refuse, workspace, fitting, foreign, tmp_path, monkeypatch):
    """Give a function that runs a tool on a line of arguments."""
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    for name in ('det.py', 'seg.py', 'cls.py'):
        (tmp_path / name).symlink_to(workspace / name)
    (tmp_path / 'fitting.pth').symlink_to(fitting)
    (tmp_path / 'foreign.pth').symlink_to(foreign)
    (tmp_path / 'x.png').write_text('no pixels')
    (tmp_path / 'net.onnx').touch()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'full').symlink_to(workspace / 'colours' / 'blue')
    return lambda line: refuse(*line.split())


CLASSES = 'train_dataloader.dataset.classes=[a,b,c]'
BATCH = 'train_dataloader.batch_size=99 train_dataloader.drop_last=True'
FILES = (
    'val_evaluator.ann_file=gone.json '
    'train_dataloader.dataset.dataset.ann_file=none.json '
    'val_dataloader.dataset.data_prefix.img=none/'
)
KEYS = ('train_dataloader.dataset.dataset.ann_file', 'val_evaluator.ann_file')
KEYS += ('val_dataloader.dataset.data_prefix.img',)


@pytest.mark.parametrize(
    ('line', 'named'),
    [
        ('train none.py', ['none.py']),
        (f'train det.py --cfg-options {FILES}', KEYS),
        ('train cls.py --work-dir x.png', ['x.png']),
        ('train cls.py --launcher pytorch', ['dist_train.sh']),
        ('train cls.py --resume none.pth', ['none.pth']),
        ('train cls.py --resume fitting.pth', ['optimizer', 'load_from']),
        ('train cls.py --cfg-options load_from=foreign.pth', ['conv.weight']),
        (f'train cls.py --cfg-options {BATCH}', ['8 samples', '99']),
        (f'train cls.py --cfg-options {CLASSES}', ['class']),
        ('train cls.py --cfg-options model.neck.type=NoNeck', ['NoNeck']),
        ('test cls.py fitting.pth --tta --show-dir drawn', ['--tta']),
        ('test cls.py none.pth', ['none.pth']),
        (
            'test cls.py net.onnx --cfg-options model.head.topk=(1,)',
            ['model.head.topk', 'net.onnx'],
        ),
        (
            'image_demo full cls.py net.onnx --cfg-options model.head=None',
            ['model.head', 'net.onnx'],
        ),
        ('test cls.py foreign.pth', ['conv.weight']),
        ('image_demo full cls.py none.pth', ['none.pth']),
        ('image_demo full cls.py foreign.pth', ['conv.weight']),
        ('image_demo none.png cls.py fitting.pth', ['none.png']),
        ('image_demo x.png cls.py fitting.pth', ['x.png']),
        ('image_demo empty cls.py fitting.pth', ['empty']),
        ('image_demo full cls.py fitting.pth --out-dir full', ['overwrite']),
        ('image_demo full cls.py fitting.pth --device cuda:99', ['cuda:99']),
    ],
)
def test_ends_before_the_work_starts(complaint, line, named):
    said = complaint(line)
    assert all(words in said for words in named), said


def test_library_that_is_missing(refuse, workspace, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    said = refuse('train', workspace / 'cls.py')
    assert 'pip install "mmpretrain==1.2.0"' in said


def test_partial_checkpoint_needs_to_be_allowed(
    refuse, workspace, fitting, tool, tmp_path
):
    content = torch.load(fitting, weights_only=True)
    del content['state_dict']['head.fc.bias']
    torch.save(content, tmp_path / 'part.pth')
    args = [workspace / 'cls.py', tmp_path / 'part.pth']
    assert 'head.fc.bias' in refuse('test', *args)
    # Allowed, the evaluation starts.
    with pytest.raises(AssertionError, match='the work started'):
        tool('test').main([*map(str, args), '--allow-partial'])


def test_images_of_one_name(refuse, workspace, fitting, tmp_path):
    for folder in ('blue', 'green'):
        source = workspace / 'colours' / folder / f'{folder}0.png'
        target = tmp_path / 'twice' / folder / 'same.png'
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    key = f'test_dataloader.dataset.data_root={tmp_path}/twice'
    args = ['--show-dir', 'drawn', '--cfg-options', key]
    assert 'same.png' in refuse('test', workspace / 'cls.py', fitting, *args)


def test_arguments_that_launchers_and_mim_pass(tool):
    """mim passes --gpus to a train.py whose help names it."""
    parser = tool('train').make_parser()
    assert '--gpus' not in parser.format_help()
    for spelling in ('--local_rank', '--local-rank'):
        assert parser.parse_args(['x.py', f'{spelling}=3']).local_rank == 3


@pytest.mark.parametrize(
    ('error', 'named'),
    [
        (OSError(errno.ENOSPC, 'No space left', 'x.pth'), 'x.pth'),
        (
            RuntimeError('[gloo/tcp/pair.cc:1] Timed out waiting\nmore'),
            'env_cfg.dist_cfg.timeout',
        ),
    ],
    ids=['full disk', 'silent process'],
)
def test_training_that_is_cut_off(refuse, workspace, error, named):
    said = refuse('train', workspace / 'cls.py', fails=error)
    assert named in said and '--resume' in said


def test_type_that_is_unknown_when_a_run_begins(refuse, workspace):
    error = KeyError('NoMetric is not in the mmpretrain::metric registry.')
    assert 'NoMetric is' in refuse('train', workspace / 'cls.py', fails=error)


@pytest.mark.parametrize('script', ['slurm_train', 'slurm_test'])
def test_slurm_job(run, repo, tmp_path, script):
    """A stand-in for srun prints what the real one would get."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    words = run(
        tmp_path,
        f'{script}.sh',
        *('part', 'job', 'my config.py', 'x.pth', '--cfg-options', 'a=1'),
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        GPUS='2',
        SRUN_ARGS='--time 5 --quiet',
    ).stdout.splitlines()
    assert words[:2] == ['-p', 'part']
    program = f'{repo}/tools/{script.removeprefix("slurm_")}.py'
    assert set(words) >= {
        *('--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2', '--quiet'),
        *('my config.py', '--launcher=slurm', 'a=1', program),
    }

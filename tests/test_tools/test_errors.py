"""What a user can get wrong ends with a sentence, before the work starts."""

import os
import pickle

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

    def call(name, *args):
        module = tool(name)

        def run(self):
            raise AssertionError('the work started')

        monkeypatch.setattr(Runner, 'train', run)
        monkeypatch.setattr(Runner, 'test', run)
        with pytest.raises(SystemExit) as ended:
            module.main(list(map(str, args)))
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert 'error: ' in said
        assert 'Traceback' not in said
        return said

    return call


@pytest.fixture
def early(monkeypatch):
    """Fail where a Runner is made: these errors come before it."""

    def make(*args, **kwargs):
        raise AssertionError('a Runner was made')

    monkeypatch.setattr(Runner, 'from_cfg', make)


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


@pytest.mark.parametrize(
    ('config', 'options', 'named'),
    [
        ('dat.py', [], ['does not exist', 'det.py']),
        (
            'mask-rcnn_mobilemamba-b1_fpn_1x_cocco.py',
            [],
            ['mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'],
        ),
        (
            'det.py',
            [
                '--cfg-options',
                'train_dataloader.dataset.dataset.ann_file=none.json',
                'val_dataloader.dataset.data_prefix.img=none/',
                'val_evaluator.ann_file=gone.json',
            ],
            [
                '(train_dataloader.dataset.dataset.ann_file)',
                '(val_dataloader.dataset.data_prefix.img)',
                '(val_evaluator.ann_file)',
            ],
        ),
        ('cls.py', ['--work-dir', __file__], ['work_dir']),
        (
            'cls.py',
            ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'],
            ['auto_scale_lr.base_batch_size'],
        ),
        ('cls.py', ['--launcher', 'pytorch'], ['dist_train.sh']),
        ('cls.py', ['--resume', 'none.pth'], ['none.pth does not exist']),
    ],
)
def test_training_that_cannot_be(
    refuse, early, workspace, monkeypatch, config, options, named
):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    said = refuse('train', workspace / config, *options)
    assert all(words in said for words in named), said


def test_library_that_is_missing(refuse, early, workspace, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    said = refuse('train', workspace / 'cls.py')
    assert 'pip install "mmpretrain==1.2.0"' in said
    monkeypatch.setattr(
        'mmengine.config.config.is_installed', lambda name: False
    )
    said = refuse('train', workspace / 'seg.py')
    assert 'pip install "mmsegmentation==1.2.2"' in said


def test_checkpoints_to_train_from(refuse, workspace, fitting, foreign):
    said = refuse('train', workspace / 'cls.py', '--resume', fitting)
    assert 'optimizer' in said and 'load_from' in said
    options = ['--cfg-options', f'load_from={foreign}']
    said = refuse('train', workspace / 'cls.py', *options)
    assert 'conv.weight' in said


def test_data_that_the_library_cannot_use(refuse, workspace):
    options = ['--cfg-options', 'train_dataloader.batch_size=99']
    options += ['train_dataloader.drop_last=True']
    said = refuse('train', workspace / 'cls.py', *options)
    assert '8 samples' in said and '99' in said
    options = ['--cfg-options', 'train_dataloader.dataset.classes=[a,b,c]']
    assert 'class' in refuse('train', workspace / 'cls.py', *options)


@pytest.mark.parametrize('name', ['test', 'image_demo'])
def test_checkpoints_to_predict_with(refuse, workspace, foreign, name):
    image = workspace / 'colours' / 'blue' / 'blue0.png'
    args = [*([image] if name == 'image_demo' else []), workspace / 'cls.py']
    assert 'none.pth does not exist' in refuse(name, *args, 'none.pth')
    assert 'conv.weight' in refuse(name, *args, foreign)


def test_file_that_would_run_code(refuse, workspace, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/attacked',)

    path = tmp_path / 'x.pth'
    path.write_text('words')
    assert 'x.pth' in refuse('test', workspace / 'cls.py', path)
    path.write_bytes(pickle.dumps(dict(state_dict=Attack()), protocol=2))
    refuse('test', workspace / 'cls.py', path)
    torch.save(dict(state_dict=Attack()), path)
    refuse('test', workspace / 'cls.py', path)
    assert not (tmp_path / 'attacked').exists()


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


@pytest.mark.parametrize(
    ('config', 'options', 'named'),
    [
        ('cls.py', ['--out', 'x.json'], '.pkl'),
        ('det.py', ['--tta'], 'masks'),
        ('cls.py', ['--show'], '--show-dir'),
        ('cls.py', ['--tta', '--show-dir', 'drawn'], '--tta'),
    ],
)
def test_test_that_cannot_be(
    refuse, early, workspace, fitting, monkeypatch, config, options, named
):
    monkeypatch.setattr('sys.platform', 'linux')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    assert named in refuse('test', workspace / config, fitting, *options)


def test_images_of_one_name(refuse, workspace, fitting, tmp_path):
    for folder, number in (('blue', 0), ('green', 0)):
        source = workspace / 'colours' / folder / f'{folder}{number}.png'
        target = tmp_path / 'twice' / folder / 'same.png'
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    key = f'test_dataloader.dataset.data_root={tmp_path}/twice'
    args = ['--show-dir', 'drawn', '--cfg-options', key]
    assert 'same.png' in refuse('test', workspace / 'cls.py', fitting, *args)


def test_images_that_cannot_be(refuse, workspace, fitting, tmp_path):
    (tmp_path / 'x.png').write_text('no pixels')
    (tmp_path / 'empty').mkdir()
    for name in ('none.png', 'x.png', 'empty'):
        said = refuse('image_demo', name, workspace / 'cls.py', fitting)
        assert name in said
    folder = workspace / 'colours' / 'blue'
    args = [folder, workspace / 'cls.py', fitting, '--out-dir', folder]
    assert 'overwrite' in refuse('image_demo', *args)
    args = [folder, workspace / 'cls.py', fitting, '--device', 'cuda:99']
    assert 'cuda:99' in refuse('image_demo', *args)


def test_arguments_that_launchers_and_mim_pass(tool):
    """mim passes --gpus to a train.py whose help names it."""
    parser = tool('train').make_parser()
    assert '--gpus' not in parser.format_help()
    for spelling in ('--local_rank', '--local-rank'):
        assert parser.parse_args(['x.py', f'{spelling}=3']).local_rank == 3


@pytest.mark.parametrize('script', ['slurm_train', 'slurm_test'])
def test_slurm_job(run, repo, tmp_path, script):
    """A stand-in for srun prints what the real one would get."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    result = run(
        tmp_path,
        f'{script}.sh',
        *('part', 'job', 'my config.py', 'x.pth', '--cfg-options', 'a=1'),
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        GPUS='2',
        SRUN_ARGS='--time 5 --quiet',
    )
    words = result.stdout.splitlines()
    assert words[:2] == ['-p', 'part']
    for word in (
        *('--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2', '--quiet'),
        *('my config.py', '--launcher=slurm', 'a=1'),
    ):
        assert word in words
    assert f'{repo}/tools/{script.removeprefix("slurm_")}.py' in words

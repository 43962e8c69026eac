"""What a user can get wrong ends with a sentence, before the work starts."""

import os
import pickle
import re

import pytest
import torch
from mmengine.config import Config
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
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(workspace / 'cls.py')
    init_default_scope('mmpretrain')
    state = MODELS.build(cfg.model).state_dict()
    path = workspace / 'fitting.pth'
    torch.save(dict(meta={}, state_dict=state), path)
    return path


def test_missing_config_suggests_a_near_one(refuse, early, workspace):
    said = refuse('train', workspace / 'dat.py')
    assert 'does not exist' in said
    assert 'det.py' in said


def test_mistyped_name_of_ours_is_found(refuse, early):
    said = refuse('train', 'mask-rcnn_mobilemamba-b1_fpn_1x_cocco.py')
    assert 'mask-rcnn_mobilemamba-b1_fpn_1x_coco.py' in said


def test_missing_host_library(refuse, early, workspace, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    said = refuse('train', workspace / 'cls.py')
    assert 'pip install "mmpretrain==1.2.0"' in said


def test_missing_library_of_a_base(refuse, early, workspace, monkeypatch):
    monkeypatch.setattr(
        'mmengine.config.config.is_installed', lambda name: False
    )
    said = refuse('train', workspace / 'seg.py')
    assert 'pip install "mmsegmentation==1.2.2"' in said


def test_missing_data_folder(refuse, early, workspace):
    key = 'train_dataloader.dataset.dataset.data_root'
    said = refuse(
        'train', workspace / 'det.py', '--cfg-options', f'{key}=data/none/'
    )
    assert f'data/none/ ({key})' in said
    assert os.getcwd() in said


def test_missing_files_are_named_together(refuse, early, workspace):
    said = refuse(
        'train',
        workspace / 'det.py',
        '--cfg-options',
        'train_dataloader.dataset.dataset.ann_file=none.json',
        'val_dataloader.dataset.data_prefix.img=none/',
        'val_evaluator.ann_file=gone.json',
    )
    for key in (
        'train_dataloader.dataset.dataset.ann_file',
        'val_dataloader.dataset.data_prefix.img',
        'val_evaluator.ann_file',
    ):
        assert f'({key})' in said


def test_training_does_not_ask_for_test_data(workspace, tool):
    train = tool('train')
    args = train.make_parser().parse_args(
        [
            str(workspace / 'cls.py'),
            '--work-dir',
            str(workspace / 'prepared'),
            '--cfg-options',
            'test_dataloader.dataset.data_root=none',
        ]
    )
    cfg, _ = train.prepare(args)
    assert cfg.work_dir == str(workspace / 'prepared')


def test_work_dir_that_is_a_file(refuse, early, workspace):
    said = refuse(
        'train', workspace / 'cls.py', '--work-dir', workspace / 'cls.py'
    )
    assert 'work_dir' in said


def test_scaled_rate_without_its_batch(refuse, early, workspace):
    said = refuse(
        'train',
        workspace / 'cls.py',
        '--auto-scale-lr',
        '--cfg-options',
        'auto_scale_lr=None',
    )
    assert 'auto_scale_lr.base_batch_size' in said


@pytest.mark.skipif(torch.cuda.is_available(), reason='is about a CPU')
@pytest.mark.parametrize(
    ('args', 'named'),
    [
        (['--amp', '--cfg-options', 'optim_wrapper.dtype=float16'], 'float16'),
        (
            ['--cfg-options', 'optim_wrapper.type=AmpOptimWrapper'],
            'AmpOptimWrapper',
        ),
        (
            ['--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'],
            'ApexOptimWrapper',
        ),
    ],
    ids=['dtype', 'without --amp', 'other wrapper'],
)
def test_mixed_precision_that_cannot_be(refuse, early, workspace, args, named):
    assert named in refuse('train', workspace / 'cls.py', *args)


def test_launcher_without_its_processes(refuse, early, workspace, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    said = refuse('train', workspace / 'cls.py', '--launcher', 'pytorch')
    assert 'dist_train.sh' in said


def test_resume_from_nothing(refuse, early, workspace):
    said = refuse('train', workspace / 'cls.py', '--resume', 'none.pth')
    assert 'none.pth does not exist' in said


def test_resume_from_weights_alone(refuse, early, workspace, fitting):
    said = refuse('train', workspace / 'cls.py', '--resume', fitting)
    assert 'optimizer' in said
    assert 'load_from' in said


def test_start_from_a_foreign_checkpoint(refuse, workspace, foreign):
    said = refuse(
        'train', workspace / 'cls.py', '--cfg-options', f'load_from={foreign}'
    )
    assert 'conv.weight' in said


@pytest.mark.parametrize('name', ['test', 'image_demo'])
def test_missing_checkpoint(refuse, early, workspace, name):
    image = workspace / 'colours' / 'blue' / 'blue0.png'
    args = [image] if name == 'image_demo' else []
    said = refuse(name, *args, workspace / 'cls.py', 'none.pth')
    assert 'none.pth does not exist' in said


@pytest.mark.parametrize('name', ['test', 'image_demo'])
def test_foreign_checkpoint(refuse, workspace, foreign, name):
    image = workspace / 'colours' / 'blue' / 'blue0.png'
    args = [image] if name == 'image_demo' else []
    said = refuse(name, *args, workspace / 'cls.py', foreign)
    assert 'missing' in said
    assert 'conv.weight' in said


def test_file_that_is_no_checkpoint(refuse, workspace, tmp_path):
    (tmp_path / 'x.pth').write_text('words')
    said = refuse('test', workspace / 'cls.py', tmp_path / 'x.pth')
    assert 'x.pth is no checkpoint' in said


def test_checkpoint_that_would_run_code(refuse, workspace, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/attacked',)

    path = tmp_path / 'x.pth'
    path.write_bytes(pickle.dumps(dict(state_dict=Attack()), protocol=2))
    refuse('test', workspace / 'cls.py', path)
    torch.save(dict(state_dict=Attack()), path)
    refuse('test', workspace / 'cls.py', path)
    assert not (tmp_path / 'attacked').exists()


def test_published_file_names_the_converter(refuse, workspace, tmp_path):
    name = 'patch_embed.0.c.weight'
    torch.save(dict(net={name: torch.ones(1)}), tmp_path / 'x.pth')
    said = refuse('test', workspace / 'cls.py', tmp_path / 'x.pth')
    assert 'mobilemamba_to_mm.py' in said


def test_partial_checkpoint_needs_to_be_allowed(
    refuse, workspace, fitting, tool, tmp_path, monkeypatch
):
    content = torch.load(fitting, weights_only=True)
    del content['state_dict']['head.fc.bias']
    torch.save(content, tmp_path / 'part.pth')
    args = [workspace / 'cls.py', tmp_path / 'part.pth']
    assert 'head.fc.bias' in refuse('test', *args)
    # Allowed, the evaluation starts.
    with pytest.raises(AssertionError, match='the work started'):
        tool('test').main([*map(str, args), '--allow-partial'])


def test_predictions_need_a_pickle_name(refuse, early, workspace, fitting):
    said = refuse('test', workspace / 'cls.py', fitting, '--out', 'x.json')
    assert '.pkl' in said


def test_augmentation_of_masks(refuse, early, workspace, fitting):
    assert 'masks' in refuse('test', workspace / 'det.py', fitting, '--tta')


def test_window_without_a_display(
    refuse, early, workspace, fitting, monkeypatch
):
    monkeypatch.setattr('sys.platform', 'linux')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    said = refuse('test', workspace / 'cls.py', fitting, '--show')
    assert '--show-dir' in said


def test_image_that_is_not_there(refuse, workspace, fitting):
    said = refuse('image_demo', 'none.png', workspace / 'cls.py', fitting)
    assert 'none.png does not exist' in said


def test_image_that_cannot_be_read(refuse, workspace, fitting, tmp_path):
    (tmp_path / 'x.png').write_text('no pixels')
    said = refuse('image_demo', 'x.png', workspace / 'cls.py', fitting)
    assert 'x.png is no image' in said


def test_folder_without_images(refuse, workspace, fitting, tmp_path):
    (tmp_path / 'empty').mkdir()
    said = refuse('image_demo', 'empty', workspace / 'cls.py', fitting)
    assert 'no images' in said


def test_results_over_the_images(refuse, workspace, fitting):
    folder = workspace / 'colours' / 'blue'
    args = [folder, workspace / 'cls.py', fitting, '--out-dir', folder]
    assert 'overwrite' in refuse('image_demo', *args)


def test_device_that_is_not_there(refuse, workspace, fitting):
    image = workspace / 'colours' / 'blue' / 'blue0.png'
    args = [image, workspace / 'cls.py', fitting, '--device', 'cuda:99']
    assert 'cuda:99' in refuse('image_demo', *args)


def test_help_hides_the_word_that_mim_looks_for(tool):
    """mim passes --gpus to a train.py whose help names it."""
    text = tool('train').make_parser().format_help()
    assert '--gpus' not in text
    for option in ('--work-dir', '--resume', '--amp', '--auto-scale-lr'):
        assert re.search(rf'{option}\b', text)


@pytest.mark.parametrize('spelling', ['--local_rank', '--local-rank'])
def test_either_spelling_of_local_rank(tool, spelling):
    args = tool('train').make_parser().parse_args(['x.py', f'{spelling}=3'])
    assert args.local_rank == 3


@pytest.mark.parametrize(
    'script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
)
def test_scripts_say_their_arguments(run, tmp_path, script):
    result = run(tmp_path, f'{script}.sh', 'only')
    assert result.returncode == 2
    assert 'usage: ' in result.stderr


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
    tool = f'{repo}/tools/{script.removeprefix("slurm_")}.py'
    assert tool in words

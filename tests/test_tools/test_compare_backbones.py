"""One command that compares backbones: whole, resumed, refused."""

import json
import subprocess
from pathlib import Path

import cv2
import pytest

for library in ('mmseg', 'timm'):
    pytest.importorskip(library)

BACKBONES = ['efficientvit_m0', 't2']


@pytest.fixture(scope='module')
def compare(tool):
    from mmmobilemamba.analysis import comparison

    comparison.SPEED_ROUNDS = 3
    return tool('misc/compare_backbones')


@pytest.fixture(scope='module')
def finished(compare, workspace, tmp_path_factory):
    """A whole run of two backbones, two steps each, and its arguments."""
    out = tmp_path_factory.mktemp('backbones')
    args = [
        *(str(workspace / 'seg.py'), '--out', str(out)),
        *('--backbones', *BACKBONES, '--seeds', '3'),
        *('--cfg-options', 'default_hooks.checkpoint.interval=1'),
    ]
    compare.main(args)
    return args, out


@pytest.fixture
def no_training(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError('trains again')

    monkeypatch.setattr(subprocess, 'Popen', fail)


def test_every_config_has_its_own_backbone_and_seed(
    compare, workspace, tmp_path
):
    args = [str(workspace / 'seg.py'), '--out', str(tmp_path / 'out')]
    args += ['--backbones', *BACKBONES, '--seeds', '4', '5']
    _, trainings = compare.plan(compare.make_parser().parse_args(args))
    for (label, seed), training in trainings.items():
        cfg = training.cfg
        backbone = cfg.model.backbone
        assert backbone.get('model_name', backbone.get('arch')) == label
        assert len(cfg.model.neck.in_channels) == 3
        assert cfg.randomness.seed == seed
        assert training.work_dir.name == f'{label}_seed{seed}'


def read(out):
    return json.loads((out / 'comparison.json').read_text())


@pytest.mark.slow
def test_table_and_figure(finished):
    _, out = finished
    summary = read(out)
    assert summary['metric'] == 'mIoU'
    assert summary['settings']['pictures'] == '96x96'
    assert [r['backbone'] for r in summary['results']] == BACKBONES
    for result in summary['results']:
        assert 0 <= result['by_seed']['3'] <= 100
        assert result['images_per_second']['fused'] > 0
        assert result['peak_bytes'] > 2**27
    # Of the published 8806682, without the classifier and its norm.
    t2 = summary['results'][1]
    assert t2['backbone_params'] == 8806682 - 1000 * (368 + 1) - 2 * 368
    table = (out / 'comparison.md').read_text().splitlines()
    assert [line.split(' | ')[0] for line in table[2:4]] == [
        f'| {name}' for name in BACKBONES
    ]
    assert cv2.imread(str(out / 'comparison.png')).std() > 5


@pytest.mark.slow
def test_finished_trainings_are_taken_as_they_are(
    finished, compare, no_training
):
    args, out = finished
    before = read(out)
    compare.main([*args, '--report-only'])
    for old, new in zip(before['results'], read(out)['results'], strict=True):
        old.pop('images_per_second')
        assert new.pop('images_per_second')
        assert old == new


@pytest.mark.slow
def test_an_interrupted_training_goes_on(finished, compare):
    """As after a kill between two checkpoints; the other one is kept."""
    args, out = finished
    before = read(out)
    run = out / 't2_seed3'
    (run / 'iter_2.pth').unlink()
    (run / 'last_checkpoint').write_text(str(run / 'iter_1.pth'))
    compare.main([*args, '--speed-batch', '0'])
    after = read(out)
    logs = sorted(run.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    assert [r['iter'] for r in records if 'loss' in r] == [2]
    assert after['results'][0]['by_seed'] == before['results'][0]['by_seed']
    spent = [s['results'][1]['train_seconds'][0] for s in (before, after)]
    assert spent[1] > spent[0]


@pytest.mark.slow
def test_other_settings_need_another_folder(finished, compare, capsys):
    args, _ = finished
    with pytest.raises(SystemExit) as ended:
        compare.main([*args, 'train_dataloader.batch_size=1'])
    assert ended.value.code == 2
    assert 'other settings' in capsys.readouterr().err


@pytest.mark.slow
def test_a_failed_training_says_how_to_go_on(
    compare, workspace, tmp_path, capfd
):
    with pytest.raises(SystemExit, match='efficientvit_m0_seed0 ended with'):
        compare.main(
            [
                *(str(workspace / 'seg.py'), '--out', str(tmp_path / 'out')),
                *('--backbones', 'efficientvit_m0', '--seeds', '0'),
                *('--cfg-options', 'model.decode_head.num_classes=2'),
            ]
        )


@pytest.mark.parametrize(
    'args, named',
    [
        (['--backbones', 'efficientvit_m'], 'efficientvit_m0'),
        (['--backbones', 't2', 't2'], 'more than once'),
        (['--backbones', 't2=none.pth'], 'none.pth does not exist'),
        (['--backbones', 'host:resnet18'], 'has strides'),
        (['--seeds', '1', '1'], '--seeds must differ'),
        (['--seeds', '-1'], '--seeds must be 0 or more'),
        (['--speed-batch', '-1'], '--speed-batch'),
        (['--report-only', '--backbones', 't2'], 'no finished training'),
        (
            ['--cfg-options', 'val_dataloader.dataset.data_root=nowhere'],
            'nowhere',
        ),
    ],
)
def test_what_is_refused(
    compare, workspace, tmp_path, no_training, capsys, args, named
):
    config, out = workspace / 'seg.py', tmp_path / 'out'
    with pytest.raises(SystemExit) as ended:
        compare.main([str(config), '--out', str(out), *args])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert named in said
    assert 'Traceback' not in said


def test_missing_config(compare, tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / 'none.py'), '--out', str(tmp_path / 'o')])
    assert 'none.py does not exist' in capsys.readouterr().err
    assert not Path(tmp_path / 'o').exists()

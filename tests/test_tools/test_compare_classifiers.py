"""The comparison of classifiers: one command, resumed, measured again."""

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmmobilemamba.analysis.comparison import Training

for library in ('mmpretrain', 'timm'):
    pytest.importorskip(library)

MODELS = ['t2', 'mobilenetv2_035']


@pytest.fixture(scope='module')
def compare(tool):
    from mmmobilemamba.analysis import comparison

    comparison.SPEED_ROUNDS = 3
    return tool('misc/compare_classifiers')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Bright and dark noise, in folders for training and holding out."""
    root = tmp_path_factory.mktemp('pictures')
    random = np.random.default_rng(0)
    for split, count in (('train', 4), ('test', 2)):
        for label, level in (('bright', 128), ('dark', 0)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                image = random.integers(0, 128, (40, 36, 3)) + level
                # Names with spaces are names too.
                cv2.imwrite(f'{folder}/no {index}.png', image.astype('u1'))
    return root


@pytest.fixture(scope='module')
def finished(compare, pictures, tmp_path_factory):
    """A whole run of two small models, and the arguments it had."""
    out = tmp_path_factory.mktemp('comparison')
    args = [
        *(str(pictures), '--out', str(out), '--models', *MODELS),
        *('--size', '32', '--epochs', '1', '--batch-size', '4'),
        *('--workers', '0'),
    ]
    compare.main(args)
    return args, out


@pytest.mark.slow
def test_table_and_curves(finished):
    _, out = finished
    summary = json.loads((out / 'comparison.json').read_text())
    assert [r['model'] for r in summary['results']] == MODELS
    assert summary['settings']['train_images'] == 8
    for result in summary['results']:
        assert result['top1'] in (0, 25, 50, 75, 100)
        assert result['images_per_second']['plain'] > 0
    t2, mobilenet = summary['results']
    # Of the published 8806682, without 998 of 1000 classes.
    assert t2['params'] == 8806682 - 998 * (368 + 1)
    assert t2['macs'] > mobilenet['macs'] > 1e5
    assert 'fused' in t2['images_per_second']
    table = (out / 'comparison.md').read_text().splitlines()
    assert [line.split(' | ')[0] for line in table[2:4]] == [
        f'| {name}' for name in MODELS
    ]
    assert cv2.imread(str(out / 'curves.png')).std() > 5


@pytest.mark.slow
def test_finished_models_are_not_trained_again(
    finished, compare, monkeypatch, capsys
):
    args, out = finished
    before = json.loads((out / 'comparison.json').read_text())

    def fail(*args, **kwargs):
        raise AssertionError('trains again')

    monkeypatch.setattr(subprocess, 'Popen', fail)
    for more in ([], ['--speed-only']):
        compare.main([*args, *more])
        after = json.loads((out / 'comparison.json').read_text())
        for old, new in zip(before['results'], after['results'], strict=True):
            old.pop('images_per_second', None)
            assert new.pop('images_per_second')
            assert old == new
    assert str(out / 'comparison.md') in capsys.readouterr().out


@pytest.mark.slow
def test_accuracy_is_evaluated_where_the_log_lacks_it(finished):
    """As after a stop between the checkpoint and its evaluation."""
    _, out = finished
    name = MODELS[1]
    training = Training(out / 'configs' / f'{name}.py')
    wanted = training.evaluate('accuracy/top1')
    (log,) = (out / name).glob('*/vis_data/scalars.json')
    whole = log.read_text()
    log.write_text(
        ''.join(
            f'{line}\n'
            for line in whole.splitlines()
            if 'accuracy' not in line
        )
    )
    try:
        again = training.evaluate('accuracy/top1')
        assert again == pytest.approx(wanted, abs=0.01)
    finally:
        log.write_text(whole)


@pytest.mark.slow
def test_other_settings_need_another_folder(finished, refused):
    args, _ = finished
    assert 'other settings' in refused(*args, '--seed', '1')


@pytest.fixture
def refused(compare, capsys, monkeypatch):
    """Give a function that runs the tool and returns its complaint."""

    def fail(*args, **kwargs):
        raise AssertionError('the work started')

    monkeypatch.setattr(subprocess, 'Popen', fail)

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            compare.main(list(map(str, args)))
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert 'Traceback' not in said
        return said

    return call


@pytest.mark.parametrize(
    'args, named',
    [
        (['--models', 'mambaout_femt'], 'mambaout_femto'),
        (['--models', 't2', 't2'], 'more than once'),
        (['--models', 'mobilemamba_t9'], 't9'),
        (['--size', '16'], '--size must be 32 or more'),
        (['--epochs', '0'], '--epochs'),
        (['--lr', '0'], '--lr'),
        (['--val-share', '1'], 'val_share'),
        (['--speed-only'], 'does not exist'),
    ],
)
def test_what_is_refused(refused, pictures, tmp_path, args, named):
    assert named in refused(pictures, '--out', tmp_path / 'out', *args)


def test_missing_data(refused, tmp_path):
    said = refused(tmp_path / 'none', '--out', tmp_path / 'out')
    assert f'{tmp_path / "none"} does not exist' in said
    assert not Path(tmp_path / 'out').exists()

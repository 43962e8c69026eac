"""check_anchors.py says which classes a detector's anchors miss."""

import pytest
from own_data import make_voc

pytest.importorskip('mmdet')
pytest.importorskip('mmcv._ext', reason='mmcv has no operators')

CLASSES = ('RBC', 'WBC', 'Platelets')


@pytest.fixture
def check(tool, repo, tmp_path, capsys):
    """Give a function that runs the tool on drawn data."""
    root = make_voc(tmp_path / 'data', CLASSES)
    name = 'retinanet_mobilemamba-t2_voc-320px.py'

    def call(*options):
        tool('misc/check_anchors').main(
            [
                str(repo / 'configs' / 'own_data' / name),
                '--cfg-options',
                f'train_dataloader.dataset.data_root={root}/',
                *options,
            ]
        )
        return capsys.readouterr().out

    return call


def test_table_and_advice(check):
    text = check()
    rows = {line.split()[0]: line.split() for line in text.splitlines()}
    # Two pictures with a box of each; the third box has no area.
    assert rows['RBC'][1] == rows['WBC'][1] == '2'
    assert rows['Platelets'][1:] == ['0']
    assert 'smaller anchors' not in text
    # The best anchor of each alone is left.
    text = check('model.train_cfg.assigner.pos_iou_thr=0.99')
    assert 'Most boxes of RBC, WBC are learned by one anchor' in text


def test_segmentor_is_refused(tool, repo, capsys):
    config = repo / 'configs' / 'own_data'
    config /= 'fpn_mobilemamba-t2_label-images-240px.py'
    with pytest.raises(SystemExit) as stop:
        tool('misc/check_anchors').main([str(config)])
    assert stop.value.code == 2
    assert 'MaxIoUAssigner' in capsys.readouterr().err

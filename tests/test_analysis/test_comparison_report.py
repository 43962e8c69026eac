"""The table and the figure of backbones side by side."""

import cv2
import pytest

from mmmobilemamba.analysis.comparison_report import (
    Compared,
    draw_comparison,
    make_table,
)
from mmmobilemamba.analysis.run_logs import RunLog


def compared(label, values, **others):
    runs = [
        RunLog(label, val={1: dict(mIoU=v / 2), 2: dict(mIoU=v)})
        for v in values
    ]
    return Compared(
        label,
        params=5_000_000,
        macs=1_234_000_000,
        backbone_params=4_000_000,
        values=dict(enumerate(values)),
        runs=runs,
        peak_bytes=3 << 20,
        seconds=[10.0, 20.0],
        **others,
    )


@pytest.fixture
def results():
    speeds = dict(plain=10.0, fused=12.5)
    return [compared('t2', [30.0, 34.0], speeds=speeds), compared('m4', [9])]


def test_table(results):
    lines = make_table(results, 'mIoU', dict(batch=4)).splitlines()
    assert lines[2] == (
        '| t2 | 32.00 ± 2.83 | 2 | 5.00 (4.00) | 1.234 | 10.0 | 12.5 | 3 '
        '| 15 |'
    )
    # One seed has no spread, and a speed that was not measured is no zero.
    assert lines[3].startswith('| m4 | 9.00 | 1 | 5.00 (4.00) | 1.234 | - | -')
    assert lines[-1] == 'batch 4'


def test_fractions_have_three_digits():
    table = make_table([compared('t2', [0.51, 0.53])], 'mAP', {})
    assert '| 0.520 ± 0.014 |' in table


def test_dict_is_what_was_measured(results):
    found = results[0].as_dict()
    assert found['by_seed'] == {0: 30.0, 1: 34.0}
    assert found['mean'] == 32.0
    assert found['images_per_second']['fused'] == 12.5
    assert results[1].as_dict()['standard_deviation'] is None


@pytest.mark.parametrize('timed', [True, False])
def test_figure(results, timed, tmp_path):
    path = tmp_path / 'figure.png'
    draw_comparison(results[not timed :], 'mIoU', path)
    picture = cv2.imread(str(path))
    assert picture.std() > 5
    # A panel more where speeds are known.
    assert picture.shape[1] == pytest.approx(504 * (2 + timed), abs=2)

"""Reading and comparing the logs of trainings."""

import json

import pytest

from mmmobilemamba.analysis.run_logs import (
    leading_metrics,
    metric_table,
    read_run,
)


@pytest.fixture
def write(tmp_path):
    """Give a function that writes a log as mmengine does."""

    def call(name, stamp, *records):
        folder = tmp_path / name / stamp / 'vis_data'
        folder.mkdir(parents=True)
        lines = (json.dumps(record) + '\n' for record in records)
        (folder / 'scalars.json').write_text(''.join(lines))
        return tmp_path / name

    return call


def train(iteration, loss, **more):
    return dict(loss=loss, iter=iteration, step=iteration, **more)


def test_resumed_run_by_epoch(write):
    """Stopped in epoch 3, after its metrics and before its checkpoint."""
    write(
        *('run', '20260101_100000', train(10, 5.0, epoch=1)),
        {'coco/bbox_mAP': 0.1, 'step': 1},
        *(train(20, 4.0, epoch=2), {'coco/bbox_mAP': 0.2, 'step': 2}),
        *(train(30, 99.0, epoch=3), train(35, 99.0, epoch=3)),
        {'coco/bbox_mAP': 0.9, 'step': 3},
    )
    again = (train(30, 3.0, epoch=3), {'coco/bbox_mAP': 0.3, 'step': 3})
    run = read_run(write('run', '20260101_120000', *again))
    assert run.curve('loss') == ([10, 20, 30], [5.0, 4.0, 3.0])
    assert run.curve('coco/bbox_mAP') == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert leading_metrics([run]) == ['coco/bbox_mAP']


def test_resumed_run_by_iteration(write):
    first = (train(50, 2.0), dict(mIoU=20.0, step=50), train(100, 1.5))
    write('seg', '20260101_100000', *first, dict(mIoU=25.0, step=100))
    again = (train(100, 1.4), dict(mIoU=26.0, step=100))
    run = read_run(write('seg', '20260102_100000', *again))
    assert run.curve('mIoU') == ([50, 100], [20.0, 26.0])


def test_process_that_died_while_writing(write, tmp_path):
    folder = write('run', '20260101_100000', train(1, 1.0))
    (file,) = folder.glob('*/vis_data/scalars.json')
    file.write_text(file.read_text() + '{"loss": 0.9, "it')
    assert read_run(folder).curve('loss') == ([1], [1.0])
    with pytest.raises(FileNotFoundError, match='vis_data'):
        read_run(tmp_path)


def test_table_tells_last_and_best(write):
    records = (
        *(train(1, 1.0, epoch=1), {'mIoU': 50.0, 'loss/val': 0.5, 'step': 1}),
        *(train(2, 1.0, epoch=2), {'mIoU': 40.0, 'loss/val': 0.75, 'step': 2}),
    )
    runs = [
        read_run(write('a', '20260101_100000', *records)),
        read_run(write('b', '20260101_100000', *records[:1], *records[3:])),
    ]
    assert metric_table(runs).splitlines()[2:] == [
        '| mIoU | 40 (best 50, epoch 1) | 40 |',
        '| loss/val | 0.75 (best 0.5, epoch 1) | 0.75 |',
    ]

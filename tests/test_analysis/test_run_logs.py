"""Reading and comparing the logs of trainings."""

import json

import pytest

from mmmobilemamba.analysis import run_logs


@pytest.fixture
def read(tmp_path):
    """Give a function that writes logs as mmengine does, and reads them."""

    def call(*logs, name='run'):
        for hour, records in enumerate(logs):
            folder = tmp_path / name / f'20260101_{hour}00000' / 'vis_data'
            folder.mkdir(parents=True)
            lines = ''.join(json.dumps(record) + '\n' for record in records)
            # The process died while writing.
            (folder / 'scalars.json').write_text(lines + '{"loss": 0.9, "it')
        return run_logs.read_run(tmp_path / name)

    return call


def train(iteration, loss, **more):
    return dict(loss=loss, iter=iteration, step=iteration, **more)


def test_resumed_run_by_epoch(read):
    """Stopped in epoch 3, after its metrics and before its checkpoint."""
    first = (
        *(train(10, 5.0, epoch=1), {'coco/bbox_mAP': 0.1, 'step': 1}),
        *(train(20, 4.0, epoch=2), {'coco/bbox_mAP': 0.2, 'step': 2}),
        *(train(30, 99.0, epoch=3), train(35, 99.0, epoch=3)),
        {'coco/bbox_mAP': 0.9, 'step': 3},
    )
    again = (train(30, 3.0, epoch=3), {'coco/bbox_mAP': 0.3, 'step': 3})
    run = read(first, again)
    assert run.curve('loss') == ([10, 20, 30], [5.0, 4.0, 3.0])
    assert run.curve('coco/bbox_mAP') == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert run_logs.leading_metrics([run]) == ['coco/bbox_mAP']


def test_resumed_run_by_iteration(read):
    # At step 0, as mmengine notes it by default.
    first = (train(50, 2.0), dict(mIoU=20.0, step=0), train(100, 1.5))
    again = (train(100, 1.4), dict(mIoU=26.0, step=100))
    run = read((*first, dict(mIoU=25.0, step=100)), again)
    assert run.curve('mIoU') == ([50, 100], [20.0, 26.0])


def test_table_tells_last_and_best(read):
    records = (
        *(train(1, 1.0, epoch=1), {'mIoU': 50.0, 'loss/val': 0.5, 'step': 1}),
        *(train(2, 1.0, epoch=2), {'mIoU': 40.0, 'loss/val': 0.75, 'step': 2}),
    )
    records[1].update(mAcc=float('nan'), note='no number')
    records[3]['mAcc'] = 60.0
    runs = [read(records), read(records[2:], name='late')]
    assert run_logs.metric_table(runs).splitlines()[2:] == [
        '| mIoU | 40 (best 50, epoch 1) | 40 |',
        '| loss/val | 0.75 (best 0.5, epoch 1) | 0.75 |',
        '| mAcc | 60 | 60 |',
    ]

"""Reading and comparing the logs of trainings."""

import json
import math

import pytest

from mmmobilemamba.analysis.figures import check_figure_path
from mmmobilemamba.analysis.run_logs import (
    default_keys,
    draw_curves,
    metric_table,
    read_run,
)


@pytest.fixture
def write(tmp_path):
    """Give a function that writes a log as mmengine does."""

    def call(run, stamp, records, end='\n'):
        folder = tmp_path / run / stamp / 'vis_data'
        folder.mkdir(parents=True)
        lines = '\n'.join(json.dumps(record) for record in records)
        (folder / 'scalars.json').write_text(lines + end)
        return tmp_path / run

    return call


def train(iteration, epoch=None, **values):
    record = dict(lr=0.1, **values, iter=iteration, step=iteration)
    return record if epoch is None else dict(record, epoch=epoch)


def test_resumed_run_by_epoch(write):
    # Stopped in epoch 3, whose metrics were written but not its checkpoint,
    # and resumed from epoch 2.
    write(
        'run',
        '20260101_100000',
        [
            train(10, 1, loss=5.0),
            {'coco/bbox_mAP': 0.1, 'step': 1},
            train(20, 2, loss=4.0),
            {'coco/bbox_mAP': 0.2, 'step': 2},
            train(30, 3, loss=99.0),
            train(35, 3, loss=99.0),
            {'coco/bbox_mAP': 0.9, 'step': 3},
        ],
    )
    folder = write(
        'run',
        '20260101_120000',
        [train(30, 3, loss=3.0), {'coco/bbox_mAP': 0.3, 'step': 3}],
    )
    run = read_run(folder)
    assert run.name == 'run'
    assert run.curve('loss') == ([10, 20, 30], [5.0, 4.0, 3.0])
    assert run.curve('coco/bbox_mAP') == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert default_keys([run]) == ['loss', 'coco/bbox_mAP']


def test_resumed_run_without_a_new_evaluation(write):
    write(
        'run',
        '20260101_100000',
        [
            train(10, 1, loss=5.0),
            {'accuracy/top1': 10.0, 'step': 1},
            train(20, 2, loss=4.0),
            {'accuracy/top1': 20.0, 'step': 2},
        ],
    )
    folder = write('run', '20260101_120000', [train(15, 2, loss=4.5)])
    run = read_run(folder)
    assert run.curve('accuracy/top1') == ([1], [10.0])
    assert run.curve('loss') == ([10, 15], [5.0, 4.5])


def test_resumed_run_by_iteration(write):
    write(
        'seg',
        '20260101_100000',
        [
            train(50, loss=2.0),
            {'mIoU': 20.0, 'aAcc': 50.0, 'step': 50},
            train(100, loss=1.5),
            {'mIoU': 25.0, 'aAcc': 55.0, 'step': 100},
        ],
    )
    folder = write(
        'seg',
        '20260102_100000',
        [train(100, loss=1.4), {'mIoU': 26.0, 'aAcc': 56.0, 'step': 100}],
    )
    run = read_run(folder)
    assert not run.by_epoch
    assert run.curve('mIoU') == ([50, 100], [20.0, 26.0])
    assert run.metrics == ['mIoU', 'aAcc']


def test_half_a_last_line_is_left_out(write):
    folder = write('run', '20260101_100000', [train(1, 1, loss=1.0)])
    file = folder / '20260101_100000/vis_data/scalars.json'
    file.write_text(file.read_text() + '{"loss": 0.9, "it')
    assert read_run(folder).curve('loss') == ([1], [1.0])
    file.write_text('{"loss": \n{"loss": 1.0, "iter": 1}\n')
    with pytest.raises(ValueError, match='scalars.json:1 is no record'):
        read_run(folder)


def test_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match='vis_data'):
        read_run(tmp_path)


def test_table_tells_last_and_best(write):
    first = read_run(
        write(
            'a',
            '20260101_100000',
            [
                train(1, 1, loss=1.0),
                {'mIoU': 50.0, 'loss/val': 0.5, 'step': 1},
                train(2, 2, loss=1.0),
                {'mIoU': 40.0, 'loss/val': 0.75, 'step': 2},
            ],
        )
    )
    second = read_run(
        write(
            'b',
            '20260101_100000',
            [train(1, 1, loss=1.0), {'mIoU': 41.0, 'step': 1}],
        )
    )
    assert metric_table([first, second]).splitlines() == [
        '| metric | a | b |',
        '| --- | ---: | ---: |',
        '| mIoU | 40 (best 50, epoch 1) | 41 |',
        '| loss/val | 0.75 (best 0.5, epoch 1) |  |',
    ]


def test_curves_of_unlike_runs(write, tmp_path):
    runs = [
        read_run(
            write(
                'epochs',
                '20260101_100000',
                [train(5, 1, loss=2.0), {'mIoU': 30.0, 'step': 1}],
            )
        ),
        read_run(
            write(
                'iterations',
                '20260101_100000',
                [train(8, loss=math.nan), {'mIoU': 20.0, 'step': 8}],
            )
        ),
    ]
    path = tmp_path / 'figures' / 'curves.png'
    draw_curves(runs, ['loss', 'mIoU'], path, smooth=3, title='both')
    assert path.read_bytes().startswith(b'\x89PNG')
    assert [p.name for p in path.parent.iterdir()] == ['curves.png']


def test_figure_that_no_program_writes():
    with pytest.raises(ValueError, match='figure ends in'):
        check_figure_path('curves.txt')

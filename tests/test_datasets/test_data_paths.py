import pytest
from mmengine.config import Config

from mmmobilemamba.datasets.data_paths import check_data


def config(dataset, **other):
    return Config(dict(train_dataloader=dict(dataset=dataset), **other))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A folder data/ with images/ and a.json, as the place to start from."""
    (tmp_path / 'data' / 'images').mkdir(parents=True)
    (tmp_path / 'data' / 'a.json').touch()
    monkeypatch.chdir(tmp_path)


THERE = dict(
    type='CocoDataset',
    data_root='data/',
    ann_file='a.json',
    data_prefix=dict(img='images/'),
)
MISSING = dict(THERE, ann_file='b.json')


@pytest.mark.parametrize(
    ('dataset', 'key'),
    [
        (dict(THERE, data_root='date'), 'dataset.data_root'),
        (
            dict(THERE, data_prefix=dict(img='images', seg='labels')),
            'dataset.data_prefix.seg',
        ),
        (dict(ann_file='data/b.json'), 'dataset.ann_file'),
        (dict(type='CIFAR10', data_root='cifar', download=False), 'dataset'),
        (
            dict(
                type='MultiImageMixDataset',
                dataset=dict(type='ConcatDataset', datasets=[THERE, MISSING]),
            ),
            'dataset.dataset.datasets.1.ann_file',
        ),
    ],
)
def test_names_the_key_of_what_is_missing(dataset, key):
    with pytest.raises(FileNotFoundError, match=f'train_dataloader.{key}'):
        check_data(config(dataset), ('train',))


@pytest.mark.parametrize(
    'dataset',
    [
        THERE,
        dict(MISSING, backend_args=dict(backend='petrel')),
        dict(MISSING, data_root='s3://bucket/coco'),
        dict(type='mmpretrain.CIFAR10', data_root='cifar'),
    ],
    ids=['there', 'backend', 'address', 'fetches itself'],
)
def test_leaves_what_is_there_or_elsewhere_alone(dataset):
    check_data(config(dataset), ('train', 'val', 'test'))


def test_checks_the_files_of_metrics():
    metric = dict(type='CocoMetric', ann_file='data/b.json')
    cfg = config(THERE, val_evaluator=[dict(type='VOCMetric'), metric])
    with pytest.raises(FileNotFoundError, match='val_evaluator.1.ann_file'):
        check_data(cfg, ('train', 'val'))

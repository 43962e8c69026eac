"""Files of a config that are missing are named with their keys."""

import pytest
from mmengine.config import Config

from mmmobilemamba.datasets.data_paths import check_data


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A folder data/ with images/ and a.json, as the place to start from."""
    (tmp_path / 'data' / 'images').mkdir(parents=True)
    (tmp_path / 'data' / 'a.json').touch()
    monkeypatch.chdir(tmp_path)


THERE = dict(data_root='data/', ann_file='a.json')
THERE['data_prefix'] = dict(img='images/')
MISSING = dict(THERE, ann_file='b.json')
WRAPPED = dict(dataset=dict(datasets=[THERE, MISSING]))
LMDB = dict(backend_args=dict(backend='lmdb', db_path='data/b.lmdb'))


@pytest.mark.parametrize(
    ('dataset', 'key'),
    [
        (dict(THERE, data_root='date'), 'ann_file'),
        (dict(THERE, data_prefix=dict(seg='labels')), 'data_prefix.seg'),
        (dict(THERE, data_prefix='labels'), 'data_prefix'),
        (dict(ann_file='data/b.json'), 'ann_file'),
        (dict(THERE, pipeline=[LMDB]), 'pipeline.0.backend_args.db_path'),
        (WRAPPED, 'dataset.datasets.1.ann_file'),
    ],
)
def test_names_the_key_of_what_is_missing(dataset, key):
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    key = f'train_dataloader.dataset.{key}'
    with pytest.raises(FileNotFoundError, match=key):
        check_data(cfg, ('train',))
    cfg = dict(val_evaluator=[dict(type='VOCMetric'), MISSING])
    with pytest.raises(FileNotFoundError, match='val_evaluator.1.ann_file'):
        check_data(Config(cfg), ('train', 'val'))


@pytest.mark.parametrize(
    'dataset',
    [
        THERE,
        dict(MISSING, backend_args=dict(backend='petrel')),
        dict(MISSING, data_root='s3://bucket/coco'),
        dict(type='mmpretrain.CIFAR10', data_root='cifar'),
    ],
)
def test_leaves_what_is_there_or_elsewhere_alone(dataset):
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    check_data(cfg, ('train', 'val', 'test'))

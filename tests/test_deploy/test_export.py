"""An exported file computes what its model does, or is not there."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch

from mmmobilemamba.deploy import detectors
from mmmobilemamba.deploy.arguments import ExportOptions
from mmmobilemamba.deploy.export import export_model
from mmmobilemamba.deploy.session import Session

SIZE = (96, 80)
KINDS = ('classifier', 'segmentor', 'retinanet', 'mask_rcnn')


def attempt(model, path, kind='detector', **options):
    """Export to a folder that has nothing else in it."""
    options = ExportOptions(size=SIZE, **options)
    return export_model(model, kind, path / 'model.onnx', options)


@pytest.mark.parametrize('name', KINDS)
def test_every_kind(export, name):
    path, report = export(name, preprocess=True)
    assert [c.problems for c in report] == [[]] * 3
    assert max(c.error for c in report) <= 1e-4
    if name in ('retinanet', 'mask_rcnn'):
        assert all(c.boxes for c in report)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {''}
    (about,) = (json.loads(p.value) for p in model.metadata_props)
    assert about['preprocess'] and about['size'] == list(SIZE)


@pytest.mark.parametrize('name', ['segmentor', 'mask_rcnn'])
def test_free_sizes(export, name):
    _, report = export(name, dynamic_size=True)
    # Odd sizes and such that are no multiple of 64 are among them.
    assert len({c.size for c in report}) == 3
    assert [c.problems for c in report] == [[]] * 3


def test_preprocessing_is_the_hosts_at_any_batch(export, make_model):
    path, _ = export('classifier', dynamic_batch=True, preprocess=True)
    model = make_model('classifier')
    pixels = torch.randint(256, (3, 3, *SIZE), dtype=torch.uint8)
    inputs = model.data_preprocessor(dict(inputs=pixels))['inputs']
    with torch.no_grad():
        wanted = model(inputs, mode='tensor').softmax(1)
    got = Session(path)(pixels.numpy())['scores']
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match='no free batch'):
        export('retinanet', dynamic_batch=True)


def test_images_of_four_channels(make_model, tmp_path):
    changes = {
        'model.backbone.in_channels': 4,
        'model.data_preprocessor.mean': (1.0, 2.0, 3.0, 4.0),
        'model.data_preprocessor.std': (50.0, 51.0, 52.0, 53.0),
    }
    model = make_model('segmentor', **changes)
    attempt(model, tmp_path, 'segmentor', preprocess=True)
    Session(tmp_path / 'model.onnx')(np.zeros((1, 4, *SIZE), np.uint8))


def test_mismatch_leaves_no_file_and_the_model_as_it_is(make_model, tmp_path):
    model = make_model('classifier')
    before = {k: value.clone() for k, value in model.state_dict().items()}
    with pytest.raises(ValueError, match='scores differs'):
        attempt(model, tmp_path, 'classifier', tolerance=1e-12)
    assert not list(tmp_path.iterdir())
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn'])
def test_scores_that_are_all_equal(make_model, tmp_path, name):
    """The scores of the dense head are 1 nearly everywhere."""
    model = copy.deepcopy(make_model(name))
    two_stages = hasattr(model, 'rpn_head')
    head = model.rpn_head.rpn_cls if two_stages else model.bbox_head.retina_cls
    torch.nn.init.constant_(head.bias, 30.0)
    assert attempt(model, tmp_path)[0].boxes


@pytest.mark.parametrize(
    ('name', 'function', 'damage'),
    [
        ('retinanet', '_decode', lambda boxes: boxes + 1),
        ('retinanet', 'suppress', lambda got: (got[0], got[1] / 2, *got[2:])),
        ('mask_rcnn', '_extract', lambda pooled: pooled.flip(-1)),
    ],
)
def test_wrong_boxes_leave_no_file(
    make_model, tmp_path, monkeypatch, name, function, damage
):
    right = getattr(detectors, function)
    monkeypatch.setattr(detectors, function, lambda *a: damage(right(*a)))
    with pytest.raises(ValueError, match='no file was written'):
        attempt(make_model(name), tmp_path)
    assert not list(tmp_path.iterdir())


def test_heads_by_other_rules_are_refused(make_model, tmp_path):
    model = copy.deepcopy(make_model('retinanet'))
    model.bbox_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(ValueError, match='soft_nms'):
        attempt(model, tmp_path)
